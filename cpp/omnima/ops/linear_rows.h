// The arithmetic of a linear layer over rows, without autograd: for the operators that hold one.
#pragma once

#include "omnima/ops/weight.h"

namespace omnima::ops {

class LinearRows {
 public:
  LinearRows(const Weight& weight, const Weight& bias);

  // x [..., in] -> x W^T + b [..., out].
  at::Tensor forward(const at::Tensor& x) const;
  // dy [..., out] -> dy W [..., in].
  at::Tensor input_gradient(const at::Tensor& dy) const;
  // What backward returns for the weight's leaves, then the bias': nothing where the gradient was
  // added to their buffers, or where the weights are frozen.
  std::vector<at::Tensor> parameter_gradients(const at::Tensor& x, const at::Tensor& dy) const;

 private:
  at::Tensor weight_, packed_forward_, packed_backward_, weight_grad_;
  at::Tensor bias_, bias_grad_;
  std::vector<int64_t> weight_sizes_, bias_sizes_;
  bool frozen_, bias_frozen_;
};

}  // namespace omnima::ops

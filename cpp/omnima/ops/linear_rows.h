// The arithmetic of a linear layer over rows, without autograd: for the operators that hold one.
#pragma once

#include "omnima/ops/adapted_rows.h"

namespace omnima::ops {

class LinearRows {
 public:
  LinearRows(const Weight& weight, const Weight& bias, const Adapted& adapted = {});

  // x [..., in] -> x W^T + b [..., out], and what adapters make of it. `kept` becomes what backward
  // needs beside x: nothing without adapters that multiply outputs.
  at::Tensor forward(const at::Tensor& x, at::Tensor* kept = nullptr) const;

  // Whether backward() reads x: with frozen weights and no adapter it does not.
  bool reads_input() const { return !frozen_ || adapted_.reads_input(); }
  struct Gradients {
    at::Tensor input;  // undefined where it was not asked for
    // For the leaves of the weight, of the bias and of the adapters: nothing where the gradient was
    // added to their buffers, or where they are frozen.
    std::vector<at::Tensor> parameters;
  };
  Gradients backward(const at::Tensor& x, const at::Tensor& kept, const at::Tensor& dy,
                     bool with_input = true) const;

  // The two parts of it for a layer without adapters. dy [..., out] -> dy W [..., in].
  at::Tensor input_gradient(const at::Tensor& dy) const;
  std::vector<at::Tensor> parameter_gradients(const at::Tensor& x, const at::Tensor& dy) const;

 private:
  at::Tensor product_rows(const at::Tensor& rows) const;
  at::Tensor through_weight(const at::Tensor& rows) const;
  // The weight's numbers, for one product.
  at::Tensor weight() const { return held_ ? numbers_of(*held_, weight_.scalar_type()) : weight_; }

  std::shared_ptr<const HeldMatrix> held_;
  at::Tensor weight_, packed_forward_, packed_backward_, weight_grad_;
  at::Tensor bias_, bias_grad_;
  std::vector<int64_t> weight_sizes_, bias_sizes_;
  bool frozen_, bias_frozen_;
  AdaptedRows adapted_;
};

}  // namespace omnima::ops

// The arithmetic of a norm over rows on the CPU, without autograd: for the operators that hold one.
#pragma once

#include "omnima/ops/norm.h"

namespace omnima::ops {

class NormRows {
 public:
  explicit NormRows(const NormWeight& weight);

  // The norm of x. Keeps each row's statistics for backward.
  at::Tensor forward(const at::Tensor& x);
  // sum = x + change; the norm of that.
  at::Tensor forward(const at::Tensor& x, const at::Tensor& change, at::Tensor& sum);
  // The norm of x once more, for a backward that did not keep it.
  at::Tensor again(const at::Tensor& x) const;

  struct Gradients {
    at::Tensor input;
    std::vector<at::Tensor> parameters;  // nothing where it was added to the leaf's buffer
  };
  // With `skip`, the gradient that reaches x past the norm, the input's gradient is their sum.
  Gradients backward(const at::Tensor& x, const at::Tensor& dy, const at::Tensor& skip = {}) const;

 private:
  template <class T>
  void forward_rows(const T* x, T* y, int64_t first, int64_t count) const;
  bool is_layer_norm() const { return bias_.defined(); }
  const char* name() const { return is_layer_norm() ? "layer_norm" : "rms_norm"; }

  at::Tensor weight_, bias_, weight_grad_, bias_grad_;
  float eps_;
  at::Tensor mean_, rstd_;  // float32 [rows]; RMSNorm has no mean
};

}  // namespace omnima::ops

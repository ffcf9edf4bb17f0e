// The arithmetic of the activations on the CPU, without autograd: for the operators that hold one.
#pragma once

#include "omnima/ops/activation.h"

namespace omnima::ops {

// All take contiguous tensors.
at::Tensor activate_rows(const at::Tensor& x, Activation activation);
at::Tensor activation_gradient(const at::Tensor& x, const at::Tensor& dy, Activation activation);
at::Tensor soft_cap_rows(const at::Tensor& x, double cap);
at::Tensor soft_cap_gradient(const at::Tensor& y, const at::Tensor& dy, double cap);

}  // namespace omnima::ops

// Linear layers together with what stands before them in a block. What the layer reads is not kept
// for the backward pass but made again there: a norm or an activation costs little beside the
// product, and its output is as large as what has to be kept anyway.
#pragma once

#include <utility>

#include "omnima/ops/activation.h"
#include "omnima/ops/adapted.h"
#include "omnima/ops/norm.h"

namespace omnima::ops {

// sum = x + change (x where change is undefined) and norm(sum) W^T + b. All [..., features].
std::pair<at::Tensor, at::Tensor> norm_linear(const at::Tensor& x, const at::Tensor& change,
                                              const NormWeight& norm, const Weight& weight,
                                              const Weight& bias, const Adapted& adapted = {});

// activation(x) W^T + b.
at::Tensor activation_linear(const at::Tensor& x, Activation activation, const Weight& weight,
                             const Weight& bias, const Adapted& adapted = {});

}  // namespace omnima::ops

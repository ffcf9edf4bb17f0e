// y = x W^T + b, whose backward adds the weight's gradient straight into the arena in training
// steps.
#pragma once

#include "omnima/ops/weight.h"

namespace omnima::ops {

// x [..., in] -> [..., out] in x's dtype. bias may have no leaves.
at::Tensor linear(const at::Tensor& x, const Weight& weight, const Weight& bias);

}  // namespace omnima::ops

// y = x W^T + b, whose backward adds the weight's gradient straight into the arena in training
// steps.
#pragma once

#include "omnima/ops/adapted.h"

namespace omnima::ops {

// x [..., in] -> [..., out] in x's dtype. bias may have no leaves. Where adapters stand at the
// layer, its own weights are frozen.
at::Tensor linear(const at::Tensor& x, const Weight& weight, const Weight& bias,
                  const Adapted& adapted = {});

// Refuses an input that has not the weight's number of features and number format.
void check_linear(int64_t features, const at::Tensor& x, const Weight& weight);

}  // namespace omnima::ops

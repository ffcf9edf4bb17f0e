// RMSNorm (Zhang and Sennrich 2019) and LayerNorm (Ba et al. 2016) over the last dimension.
#pragma once

#include "omnima/ops/weight.h"

namespace omnima::ops {

at::Tensor rms_norm(const at::Tensor& x, const Weight& weight, double eps);
at::Tensor layer_norm(const at::Tensor& x, const Weight& weight, const Weight& bias, double eps);

}  // namespace omnima::ops

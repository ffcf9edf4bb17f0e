// RMSNorm (Zhang and Sennrich 2019) and LayerNorm (Ba et al. 2016) over the last dimension.
#pragma once

#include "omnima/ops/weight.h"

namespace omnima::ops {

// What a norm multiplies by and adds; RMSNorm adds nothing and has no bias leaves.
struct NormWeight {
  Weight weight, bias;
  double eps = 1e-5;

  bool is_layer_norm() const { return !bias.leaves.empty(); }
  std::vector<at::Tensor> leaves() const;  // weight [, bias]
};

at::Tensor norm(const at::Tensor& x, const NormWeight& weight);
at::Tensor rms_norm(const at::Tensor& x, const Weight& weight, double eps);
at::Tensor layer_norm(const at::Tensor& x, const Weight& weight, const Weight& bias, double eps);

// Refuses an input whose rows are not as long as the weight.
void check_norm(const at::Tensor& x, const NormWeight& weight);

}  // namespace omnima::ops

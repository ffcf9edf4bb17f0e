// One pass of AdamW over a flat range, and the sum of squares of a gradient.
#pragma once

#include <cstdint>

#include "omnima/kernels/adamw_rule.h"
#include "omnima/kernels/cpu/cpu_features.h"
#include "omnima/kernels/cpu/number_types.h"

namespace omnima::kernels {

struct AdamwConstants : AdamwRule {
  float grad_scale;  // clipping
};

struct OptimizerKernels {
  // Loshchilov and Hutter 2019, as torch.optim.AdamW; shadow (or null) receives the weights in
  // bfloat16.
  void (*adamw)(float* weight, const float* grad, float* exp_avg, float* exp_avg_sq,
                bfloat16* shadow, std::int64_t count, const AdamwConstants& constants);
  double (*sum_of_squares)(const float* x, std::int64_t count);
};

// The kernels of an instruction-set level; a level without its own takes the next lower one.
const OptimizerKernels& optimizer_kernels(Level level = active_level());

}  // namespace omnima::kernels

// The end of a training step on the device: the gradient's norm, the verdict whether the step
// counts, and AdamW over the flat buffers. What differs from step to step is read from device
// memory, so that a captured graph can be replayed and the host need not wait.
#pragma once

#include "omnima/kernels/adamw_rule.h"
#include "omnima/kernels/cuda/types.h"

namespace omnima::kernels::cuda {

// Written by the host before each step.
struct StepConstants : AdamwRule {
  float rescale;    // loss and gradients are multiplied by this
  float clip_norm;  // 0: no clipping
};

// Written by the device, read back by the host after the step.
struct Verdict {
  float loss;
  float grad_norm;            // before clipping
  float grad_scale;           // rescaling and clipping
  std::int32_t keep_weights;  // loss or norm is not finite: AdamW does nothing
};

struct AdamwBuffers {
  float* weights;
  const float* gradients;
  float* exp_avg;
  float* exp_avg_sq;
  bfloat16* shadow;  // receives the weights in bfloat16; or null
  std::int64_t count;
  std::int64_t decayed;  // weight decay is for the first so many
};

// Sums of squares of parts of x; their number and order follow from `count` alone.
std::int64_t norm_sums(std::int64_t count);
void sum_of_squares(const float* x, std::int64_t count, float* sums, Stream stream);
void judge(const float* sums, std::int64_t number, const float* loss,
           const StepConstants* constants, Verdict* verdict, Stream stream);
void adamw(const AdamwBuffers& buffers, const StepConstants* constants, const Verdict* verdict,
           Stream stream);

}  // namespace omnima::kernels::cuda

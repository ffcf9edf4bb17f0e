// One pass of an optimizer over a flat range: SGD, Lion, Schedule-Free AdamW, and AdamW whose
// moments are 8-bit numbers. (AdamW itself is in adamw.h.) shadow, or null, receives the weights in
// bfloat16.
#pragma once

#include <cstdint>

#include "omnima/kernels/cpu/adamw.h"
#include "omnima/kernels/cpu/cpu_features.h"
#include "omnima/kernels/cpu/number_types.h"

namespace omnima::kernels {

struct SgdConstants {
  float lr;
  float momentum;
  float weight_decay;  // added to the gradient
  float grad_scale;
  bool nesterov;
};

struct LionConstants {
  float lr;
  float beta1;
  float beta2;
  float weight_decay;
  float grad_scale;
};

struct ScheduleFreeConstants {
  float lr;
  float beta1;
  float beta2;
  float eps;
  float weight_decay;
  float correction2;  // sqrt(1 - beta2^step)
  float grad_scale;
  float share;  // of the newest point in the average
};

struct Adamw8bitConstants : AdamwConstants {
  std::uint32_t noise;  // of this step, for rounding
};

// Moments in blocks of kBlock8bit elements with one scale each, the largest magnitude.
// mean: a sign bit and a 7-bit float of magnitude / scale. Code 0 is 0, code c > 0 is the float32
// whose upper bits are c + 889, so that 127 is 1.
// root: an 8-bit float of sqrt(second moment) / scale. Code c is the float32 whose upper bits are
// c + 1777, so that 255 is 1; there is no 0, because it divides.
constexpr std::int64_t kBlock8bit = 256;
struct Moments8bit {
  std::uint8_t* mean;
  std::uint8_t* root;
  float* mean_scale;  // one a block
  float* root_scale;
};

struct UpdateKernels {
  // torch.optim.SGD.
  void (*sgd)(float* weight, const float* grad, float* momentum, bfloat16* shadow,
              std::int64_t count, const SgdConstants& constants);
  // Chen et al. 2023, algorithm 2.
  void (*lion)(float* weight, const float* grad, float* exp_avg, bfloat16* shadow,
               std::int64_t count, const LionConstants& constants);
  // Defazio et al. 2024, algorithm 1: weight is y, base is z.
  void (*schedule_free)(float* weight, const float* grad, float* base, float* exp_avg_sq,
                        bfloat16* shadow, std::int64_t count,
                        const ScheduleFreeConstants& constants);
  // The range starts with a block. Rounds up or down at random, so that the moments are right on
  // average; the chance follows from `place`, the first element's, and the step's noise alone.
  void (*adamw_8bit)(float* weight, const float* grad, const Moments8bit& moments, bfloat16* shadow,
                     std::int64_t count, std::int64_t place, const Adamw8bitConstants& constants);
};

// The kernels of an instruction-set level; a level without its own takes the next lower one.
const UpdateKernels& update_kernels(Level level = active_level());

}  // namespace omnima::kernels

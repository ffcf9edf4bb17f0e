// What sampling asks of a row of logits: is all finite, the largest, and softmax's weights.
#pragma once

#include <cstdint>

#include "omnima/kernels/cpu/cpu_features.h"

namespace omnima::kernels {

struct LogitKernels {
  bool (*all_finite)(const float* logits, std::int64_t count);
  // The largest of at least one logit; none is NaN.
  float (*largest)(const float* logits, std::int64_t count);
  // weights = e^(logit - most), 0 for -infinity and what is too small for a float; returns their
  // sum. weights may be the same memory as logits.
  double (*softmax_weights)(const float* logits, float most, float* weights, std::int64_t count);
};

// The kernels of an instruction-set level; a level without its own takes the next lower one.
const LogitKernels& logit_kernels(Level level = active_level());

}  // namespace omnima::kernels

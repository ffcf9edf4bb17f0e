// Rows on their way to the experts of a mixture and back: scaled, multiplied, added up. Sums are
// float32.
#pragma once

#include <cstdint>

#include "omnima/kernels/cpu/cpu_features.h"
#include "omnima/kernels/cpu/number_types.h"

namespace omnima::kernels {

template <class T>
struct ExpertRowKernels {
  // y = factor * x; it may be the same memory.
  void (*scale)(const T* x, float factor, T* y, std::int64_t cols);
  float (*dot)(const T* a, const T* b, std::int64_t cols);
  // y = the sum of `count` rows, which may be 0.
  void (*sum)(const T* const* rows, std::int64_t count, T* y, std::int64_t cols);
};

// The kernels of an instruction-set level; a level without its own takes the next lower one.
template <class T>
const ExpertRowKernels<T>& expert_row_kernels(Level level = active_level());

}  // namespace omnima::kernels

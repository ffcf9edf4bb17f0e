// Dropout (Srivastava et al. 2014) whose mask follows from a key and the place of a number: the
// backward pass makes it again.
#pragma once

#include <cstdint>

#include "omnima/kernels/cpu/cpu_features.h"
#include "omnima/kernels/cpu/number_types.h"

namespace omnima::kernels {

// Number i is dropped where a 32-bit hash of key and i lies below the threshold.
struct DropoutRule {
  std::uint64_t key;
  std::uint32_t threshold;
  float scale;  // of what is kept
};

template <class T>
struct DropoutKernels {
  // y[i] = x[i] times 0 or the scale, for at most 2^32 numbers; y may be the same memory as x.
  void (*apply)(const T* x, T* y, std::int64_t count, const DropoutRule& rule);
};

// The kernels of an instruction-set level; a level without its own takes the next lower one.
template <class T>
const DropoutKernels<T>& dropout_kernels(Level level = active_level());

}  // namespace omnima::kernels

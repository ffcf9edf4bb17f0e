// A factor for each column of a matrix, row by row, and its gradient.
#pragma once

#include <cstdint>

#include "omnima/kernels/cpu/cpu_features.h"
#include "omnima/kernels/cpu/number_types.h"

namespace omnima::kernels {

// The gradient of a row: all of `count` numbers.
template <class T>
struct FactorGradient {
  const float* factor;
  const T* kept;    // what the factor multiplied, or the result of it
  const T* dy;      // of the result
  T* dz;            // becomes dy times the factor; may be the same memory as dy
  float* products;  // dy times kept is added
  float* totals;    // dy is added
};

template <class T>
struct FactorKernels {
  // x[i] becomes x[i] times factor[i].
  void (*apply)(const float* factor, T* x, std::int64_t count);
  void (*backward)(const FactorGradient<T>& row, std::int64_t count);
};

// The kernels of an instruction-set level; a level without its own takes the next lower one.
template <class T>
const FactorKernels<T>& factor_kernels(Level level = active_level());

}  // namespace omnima::kernels

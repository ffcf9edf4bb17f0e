// RMSNorm and LayerNorm over rows, forward and backward, and the sums of the residual stream beside
// them. Statistics and weights are float32.
#pragma once

#include <cstdint>

#include "omnima/kernels/cpu/cpu_features.h"
#include "omnima/kernels/cpu/number_types.h"

namespace omnima::kernels {

struct NormShape {
  std::int64_t rows;
  std::int64_t cols;
  float eps;
};

template <class T>
struct NormKernels {
  // y = x * rstd * weight; rstd [rows] is kept for backward.
  void (*rms_forward)(const T* x, const float* weight, T* y, float* rstd, NormShape shape);
  // Writes dx and adds to dweight [cols].
  void (*rms_backward)(const T* x, const float* weight, const float* rstd, const T* dy, T* dx,
                       float* dweight, NormShape shape);
  // y = (x - mean) * rstd * weight + bias; bias may be null.
  void (*layer_forward)(const T* x, const float* weight, const float* bias, T* y, float* mean,
                        float* rstd, NormShape shape);
  // Writes dx, adds to dweight and (unless null) dbias.
  void (*layer_backward)(const T* x, const float* weight, const float* mean, const float* rstd,
                         const T* dy, T* dx, float* dweight, float* dbias, NormShape shape);
  // sum = a + b over `count` numbers; it may be the same memory as either.
  void (*add)(const T* a, const T* b, T* sum, std::int64_t count);
};

// The kernels of an instruction-set level; a level without its own takes the next lower one.
template <class T>
const NormKernels<T>& norm_kernels(Level level = active_level());

}  // namespace omnima::kernels

// RMSNorm and LayerNorm over rows, forward and backward; sums in float32. A residual may be added
// on the way, so that the sum of two branches is written and normalised in one pass.
#pragma once

#include "omnima/kernels/cuda/types.h"

namespace omnima::kernels::cuda {

struct NormShape {
  std::int64_t rows;
  std::int64_t cols;
  float eps;
};

// y = norm(x) or norm(x + residual); pointers marked "or null" switch a part off.
template <class T>
struct NormForward {
  const T* x;           // [rows, cols]
  const T* residual;    // or null
  const float* weight;  // [cols]
  const float* bias;    // or null; LayerNorm only
  T* sum;               // x + residual as it is stored; null without a residual
  T* y;
  float* mean;  // [rows]; null: RMSNorm
  float* rstd;  // [rows]
};

template <class T>
struct NormBackward {
  const T* x;  // what was normalised: with a residual, the sum
  const float* weight;
  const float* mean;  // null: RMSNorm
  const float* rstd;
  const T* dy;
  const T* dsum;   // the gradient that reaches the sum from elsewhere, or null
  T* dx;           // the gradient of the sum, and so of both that were added
  float* partial;  // scratch: norm_parts(rows) * cols floats, twice that with dbias
  float* dweight;  // [cols], the gradient is added; its order of sums is fixed
  float* dbias;    // the same, or null
};

// Into how many parts of rows the weight's gradient is cut.
std::int64_t norm_parts(std::int64_t rows);

template <class T>
void norm_forward(const NormForward<T>& tensors, const NormShape& shape, Stream stream);
template <class T>
void norm_backward(const NormBackward<T>& tensors, const NormShape& shape, Stream stream);

}  // namespace omnima::kernels::cuda

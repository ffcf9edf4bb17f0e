// Products of a matrix with the few rows of a decode step, and the numbers of a matrix one by one
// for the many rows of a prompt.
#pragma once

#include "omnima/kernels/cuda/decode_matrix.h"

namespace omnima::kernels::cuda {

struct GemvOutput {
  DecodeMatrix matrix;
  const float* bias = nullptr;  // [outputs], or null
  float* y = nullptr;           // [rows, outputs], rows y_stride apart
  std::int64_t y_stride = 0;
};

constexpr int kGemvOutputs = 3;

// y = W x + bias for up to three matrices with the same inputs, `kind` and whole(). Each sum has an
// order of its own, whatever the number of rows.
struct GemvTask {
  GemvOutput outputs[kGemvOutputs];
  int count = 0;
  const float* x = nullptr;  // [rows, inputs]
  std::int64_t rows = 0;
  bool adds = false;  // to what y holds
};

void decode_gemv(const GemvTask& task, Stream stream);

// out [count, inputs] = the numbers of rows `first` on, as the formats define them.
template <class T>
void unpack_rows(const DecodeMatrix& matrix, std::int64_t first, std::int64_t count, T* out,
                 Stream stream);

}  // namespace omnima::kernels::cuda

// Matrix-vector and skinny matrix products: y[r][o] = dot(weight[o], x[r]) + bias[o].
// Every (r, o) is summed in one fixed order, whatever the number of rows, the range of outputs and
// the number of threads, so a sequence's numbers do not depend on what is computed beside it.
#pragma once

#include <cstdint>

#include "omnima/kernels/cpu/cpu_features.h"

namespace omnima::kernels {

struct Gemv {
  const float* weight;  // [outputs, inputs], rows weight_stride apart
  std::int64_t weight_stride;
  const float* bias;  // [outputs] or null
  std::int64_t inputs;
  const float* x;  // [rows, inputs], rows x_stride apart
  std::int64_t x_stride;
  std::int64_t rows;
  float* y;  // [rows, outputs], rows y_stride apart
  std::int64_t y_stride;
  bool cached = false;  // the weights lie in the first caches
  // Of cached weights: what is asked for meanwhile, those that come next.
  const std::uint8_t* next = nullptr;
  std::int64_t next_bytes = 0;
};

using GemvFunction = void (*)(const Gemv&, std::int64_t begin, std::int64_t end);

// Computes the outputs begin..end of all rows.
void gemv(const Gemv& product, std::int64_t begin, std::int64_t end);
// The table behind it, for tests and benchmarks.
const Variants<GemvFunction>& gemv_variants();

}  // namespace omnima::kernels

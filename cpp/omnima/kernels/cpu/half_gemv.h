// gemv (gemv.h) of weights in bfloat16 with activations rounded to bfloat16: exact products, sums
// in float32. A level sums in an order of its own, the same for a row whatever is computed beside
// it.
#pragma once

#include <cstdint>

#include "omnima/kernels/cpu/cpu_features.h"
#include "omnima/kernels/cpu/number_types.h"

namespace omnima::kernels {

// Rows as a level reads them take so many bytes.
std::int64_t half_rows_bytes(std::int64_t rows, std::int64_t inputs, Level level = active_level());
// Writes rows first..last of x [rows, inputs] there; threads may write others of them.
void pack_half_rows(const float* x, std::int64_t first, std::int64_t last, std::int64_t inputs,
                    void* packed, Level level = active_level());

struct HalfGemv {
  const bfloat16* weight;  // [outputs, inputs]
  const float* bias;       // [outputs] or null
  std::int64_t inputs;
  const void* x;  // what pack_half_rows wrote
  std::int64_t rows;
  float* y;  // [rows, outputs], rows y_stride apart
  std::int64_t y_stride;
};

// Computes the outputs begin..end of all rows.
void half_gemv(const HalfGemv& product, std::int64_t begin, std::int64_t end,
               Level level = active_level());

// What a level has.
struct HalfGemvKernels {
  std::int64_t (*bytes)(std::int64_t rows, std::int64_t inputs);
  void (*pack)(const float* x, std::int64_t first, std::int64_t last, std::int64_t inputs,
               void* packed);
  void (*gemv)(const HalfGemv&, std::int64_t begin, std::int64_t end);
};

}  // namespace omnima::kernels

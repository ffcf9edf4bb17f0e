// gemv (gemv.h) with weights as they are stored: 16-bit numbers, or blocks of small integers that
// share scales. Each weight is what its format says, exactly, and every sum is made in the order of
// gemv: the results are those of gemv with the same weights in float32, bit for bit.
#pragma once

#include <cstdint>
#include <functional>

#include "omnima/kernels/cpu/cpu_features.h"
#include "omnima/kernels/cpu/number_types.h"

namespace omnima::kernels {

// Layouts that have code of their own, as quant/formats/ describes them; kOther: any that a
// function turns into float32.
// kInt8, kInt4, kInt4Z: kQ8_0, kQ4_0, kQ4_1 with groups of another size, and kNf4, whose groups
// share a half: what a block holds gives their sizes.
enum class BlockLayout {
  kOther,
  kF32,
  kF16,
  kBf16,
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ2K,
  kQ3K,
  kQ4K,
  kQ5K,
  kQ6K,
  kInt8,
  kInt4,
  kInt4Z,
  kNf4
};

struct Blocks {
  BlockLayout layout;
  std::int64_t numbers;  // of a block
  std::int64_t bytes;    // of a block
  std::function<void(const std::uint8_t* blocks, std::int64_t count, float* out)> dequantize;
};

struct BlockGemv {
  Blocks format;
  const std::uint8_t* weight;  // [outputs, inputs / format.numbers] blocks
  const float* bias;           // [outputs] or null
  std::int64_t inputs;
  const float* x;  // [rows, inputs], rows x_stride apart
  std::int64_t x_stride;
  std::int64_t rows;
  float* y;  // [rows, outputs], rows y_stride apart
  std::int64_t y_stride;
};

// Computes the outputs begin..end of all rows.
void block_gemv(const BlockGemv& product, std::int64_t begin, std::int64_t end,
                Level level = active_level());
// Writes the numbers of `count` blocks.
void dequantize_blocks(const Blocks& format, const std::uint8_t* blocks, std::int64_t count,
                       float* out, Level level = active_level());
// The same, each rounded to the nearest bfloat16.
void dequantize_blocks(const Blocks& format, const std::uint8_t* blocks, std::int64_t count,
                       bfloat16* out, Level level = active_level());

// What a level has for a format; null: nothing of its own.
struct BlockKernels {
  // At most `rows` rows.
  void (*gemv)(const BlockGemv&, std::int64_t begin, std::int64_t end) = nullptr;
  void (*dequantize)(const Blocks&, const std::uint8_t* blocks, std::int64_t count,
                     float* out) = nullptr;
  void (*round)(const Blocks&, const std::uint8_t* blocks, std::int64_t count,
                bfloat16* out) = nullptr;
  std::int64_t rows = 8;
};

}  // namespace omnima::kernels

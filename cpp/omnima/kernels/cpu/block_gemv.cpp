// Chooses the code of a level; weights without any, or of many rows, go through float32 in the
// first caches.
#include "omnima/kernels/cpu/block_gemv.h"

#include <algorithm>
#include <bit>

#include "omnima/core/buffer.h"
#include "omnima/kernels/cpu/gemv.h"

namespace omnima::kernels {

#ifdef OMNIMA_X86
BlockKernels block_kernels_avx2(const Blocks& format);
BlockKernels block_kernels_avx512(const Blocks& format);
#endif

namespace {

BlockKernels block_kernels_generic(const Blocks&) { return {}; }

constexpr std::int64_t kTileBytes = 24 << 10;  // of float32 weights between two passes
thread_local core::Buffer tile_buffer;

// To nearest, ties to even; NaN stays NaN.
bfloat16 round_to_bfloat16(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return {static_cast<std::uint16_t>(nan ? bits >> 16 | 0x40u : rounded)};
}

BlockKernels kernels_of(const Blocks& format, Level level) {
  static const Variants<BlockKernels (*)(const Blocks&)> table{
      {Level::kGeneric, block_kernels_generic},
#ifdef OMNIMA_X86
      {Level::kAvx2, block_kernels_avx2},
      {Level::kAvx512, block_kernels_avx512},
#endif
  };
  return table.at(level)(format);
}

void write_numbers(const Blocks& format, const BlockKernels& own, const std::uint8_t* blocks,
                   std::int64_t count, float* out) {
  if (own.dequantize != nullptr) return own.dequantize(format, blocks, count, out);
  format.dequantize(blocks, count, out);
}

}  // namespace

void dequantize_blocks(const Blocks& format, const std::uint8_t* blocks, std::int64_t count,
                       float* out, Level level) {
  const BlockKernels own = kernels_of(format, level);
  write_numbers(format, own, blocks, count, out);
}

void dequantize_blocks(const Blocks& format, const std::uint8_t* blocks, std::int64_t count,
                       bfloat16* out, Level level) {
  const BlockKernels own = kernels_of(format, level);
  if (own.round != nullptr) return own.round(format, blocks, count, out);
  const std::int64_t at_once = std::max<std::int64_t>(
      1, kTileBytes / (format.numbers * static_cast<std::int64_t>(sizeof(float))));
  for (std::int64_t first = 0; first < count; first += at_once) {
    const std::int64_t here = std::min(at_once, count - first);
    const std::int64_t numbers = here * format.numbers;
    auto* tile =
        static_cast<float*>(tile_buffer.get(static_cast<std::size_t>(numbers) * sizeof(float)));
    write_numbers(format, own, blocks + first * format.bytes, here, tile);
    std::transform(tile, tile + numbers, out + first * format.numbers, round_to_bfloat16);
  }
}

void block_gemv(const BlockGemv& product, std::int64_t begin, std::int64_t end, Level level) {
  const auto [format, weight, bias, inputs, x, x_stride, rows, y, y_stride] = product;
  const auto gemv = gemv_variants().at(level);
  if (format.layout == BlockLayout::kF32) {
    const auto* numbers = reinterpret_cast<const float*>(weight);
    gemv({numbers, inputs, bias, inputs, x, x_stride, rows, y, y_stride}, begin, end);
    return;
  }
  const BlockKernels own = kernels_of(format, level);
  if (own.gemv != nullptr && rows <= own.rows) {
    own.gemv(product, begin, end);
    return;
  }
  const std::int64_t blocks = inputs / format.numbers;
  const std::int64_t row_bytes = inputs * static_cast<std::int64_t>(sizeof(float));
  const std::int64_t fit = kTileBytes / std::max<std::int64_t>(1, row_bytes);
  const std::int64_t at_once = std::max<std::int64_t>(1, fit / 4) * 4;
  for (std::int64_t o = begin; o < end; o += at_once) {
    const std::int64_t count = std::min(at_once, end - o);
    auto* tile = static_cast<float*>(tile_buffer.get(
        static_cast<std::size_t>(std::max<std::int64_t>(1, count * inputs)) * sizeof(float)));
    write_numbers(format, own, weight + o * blocks * format.bytes, count * blocks, tile);
    const std::int64_t next = std::min(at_once, end - o - count) * blocks * format.bytes;
    gemv({tile, inputs, bias ? bias + o : nullptr, inputs, x, x_stride, rows, y + o, y_stride, true,
          weight + (o + count) * blocks * format.bytes, next},
         0, count);
  }
}

}  // namespace omnima::kernels

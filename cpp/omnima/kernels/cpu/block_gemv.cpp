// Chooses the code of a level; weights without any, or of many rows, go through float32 in the
// first caches.
#include "omnima/kernels/cpu/block_gemv.h"

#include <algorithm>

#include "omnima/core/buffer.h"
#include "omnima/kernels/cpu/gemv.h"

namespace omnima::kernels {

#ifdef OMNIMA_X86
BlockKernels block_kernels_avx2(const Blocks& format);
BlockKernels block_kernels_avx512(const Blocks& format);
#endif

namespace {

BlockKernels block_kernels_generic(const Blocks&) { return {}; }

constexpr std::int64_t kTileBytes = 32 << 10;  // of float32 weights between two passes
thread_local core::Buffer tile_buffer;

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

void block_gemv(const BlockGemv& product, std::int64_t begin, std::int64_t end, Level level) {
  const auto [format, weight, bias, inputs, x, x_stride, rows, y, y_stride] = product;
  const auto gemv = gemv_variants().at(level);
  if (format.layout == BlockLayout::kF32) {
    const auto* numbers = reinterpret_cast<const float*>(weight);
    gemv({numbers, inputs, bias, inputs, x, x_stride, rows, y, y_stride}, begin, end);
    return;
  }
  const BlockKernels own = kernels_of(format, level);
  if (own.gemv != nullptr && rows <= kBlockRows) {
    own.gemv(product, begin, end);
    return;
  }
  const std::int64_t blocks = inputs / format.numbers;
  const std::int64_t at_once = std::max<std::int64_t>(
      4, kTileBytes / std::max<std::int64_t>(1, inputs * static_cast<std::int64_t>(sizeof(float))));
  for (std::int64_t o = begin; o < end; o += at_once) {
    const std::int64_t count = std::min(at_once, end - o);
    auto* tile = static_cast<float*>(tile_buffer.get(
        static_cast<std::size_t>(std::max<std::int64_t>(1, count * inputs)) * sizeof(float)));
    write_numbers(format, own, weight + o * blocks * format.bytes, count * blocks, tile);
    gemv({tile, inputs, bias ? bias + o : nullptr, inputs, x, x_stride, rows, y + o, y_stride}, 0,
         count);
  }
}

}  // namespace omnima::kernels

// compact_gemv in plain C++: rows become float32 in the first cache.
#include <algorithm>
#include <bit>

#include "omnima/core/buffer.h"
#include "omnima/kernels/cpu/compact_gemv.h"
#include "omnima/kernels/cpu/gemv.h"

namespace omnima::kernels {
namespace {

constexpr std::int64_t kRowsAtOnce = 4;
thread_local core::Buffer rows_buffer;

void gemv_of_rows(const CompactGemv& g, std::int64_t begin, std::int64_t end) {
  const auto numbers = static_cast<std::size_t>(kRowsAtOnce * g.inputs);
  auto* floats = static_cast<float*>(
      rows_buffer.get(numbers * (sizeof(float) + sizeof(bfloat16)) + sizeof(float)));
  auto* halves = reinterpret_cast<bfloat16*>(floats + numbers);
  for (std::int64_t o = begin; o < end; o += kRowsAtOnce) {
    const std::int64_t count = std::min(kRowsAtOnce, end - o);
    for (std::int64_t i = 0; i < count; ++i) {
      unpack_compact_row(g.weight, o + i, halves + i * g.inputs);
    }
    std::transform(halves, halves + count * g.inputs, floats, [](bfloat16 x) {
      return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16);
    });
    gemv_variants().at(Level::kGeneric)({floats, g.inputs, g.bias ? g.bias + o : nullptr, g.inputs,
                                         g.x, g.x_stride, g.rows, g.y + o, g.y_stride},
                                        0, count);
  }
}

std::uint64_t encode(const bfloat16* numbers, const std::uint8_t (&highs)[kCompactHighs],
                     std::uint8_t* lows, std::uint8_t* places) {
  std::uint64_t strange = 0;
  for (int i = 0; i < kCompactPiece; ++i) {
    const std::uint16_t bits = numbers[compact_number(i)].bits;
    lows[i] = static_cast<std::uint8_t>(bits);
    const auto* found = std::find(std::begin(highs), std::end(highs), bits >> 8);
    const bool there = found != std::end(highs);
    places[i] = static_cast<std::uint8_t>(there ? found - std::begin(highs) : 0);
    if (!there) strange |= std::uint64_t{1} << i;
  }
  return strange;
}

}  // namespace

CompactKernels compact_kernels_generic() { return {gemv_of_rows, encode}; }

}  // namespace omnima::kernels

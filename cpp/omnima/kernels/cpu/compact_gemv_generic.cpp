// What compact_gemv needs, in plain C++.
#include <algorithm>
#include <bit>

#include "omnima/core/buffer.h"
#include "omnima/kernels/cpu/compact_gemv.h"

namespace omnima::kernels {
namespace {

thread_local core::Buffer row_buffer;

void unpack(const Compact& weight, std::int64_t begin, std::int64_t end, float* out) {
  const std::int64_t inputs = weight.inputs;
  auto* row =
      static_cast<bfloat16*>(row_buffer.get(static_cast<std::size_t>(inputs) * sizeof(bfloat16)));
  for (std::int64_t o = begin; o < end; ++o, out += inputs) {
    unpack_compact_row(weight, o, row);
    std::transform(row, row + inputs, out, [](bfloat16 x) {
      return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16);
    });
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

CompactKernels compact_kernels_generic() { return {nullptr, unpack, encode}; }

}  // namespace omnima::kernels

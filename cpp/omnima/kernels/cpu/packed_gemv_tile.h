// The loops of packed_gemv, shared by its levels; V is a level's way to hold 16 outputs. All is
// private to the level's file.
#pragma once

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "omnima/kernels/cpu/packed_gemv.h"

namespace omnima::kernels {
namespace {

// Weights are asked for this far ahead of their use: the memory's latency at a core's full rate.
constexpr std::int64_t kPackedAhead = 6144;

// Rows of the product that pass over a tile at once.
template <class V, int kBits, bool kLeast, int R>
inline void packed_tile(const PackedGemv& g, std::int64_t tile, std::int64_t row,
                        std::int64_t begin, std::int64_t end) {
  constexpr std::int32_t kZero = kBits == 8 ? 128 : kLeast ? 0 : 8;
  constexpr std::int64_t kPieceBytes = kPieceInputs * kPackedOutputs * kBits / 8;
  using Sum = typename V::template Sum<kBits>;
  const Packed& w = g.weight;
  const std::int64_t pieces = w.pieces(), of_group = w.group_pieces(), groups = w.groups();
  const std::int8_t* x = g.x.levels + row * pieces * kPieceInputs;
  const float* scales = g.x.scales + row * pieces;
  const std::int32_t* totals = g.x.totals + row * pieces;
  const std::uint8_t* at = w.data + tile * w.tile_bytes();
  typename V::Floats sums[R];
  for (auto& sum : sums) sum = V::zero();
  for (std::int64_t group = 0; group < groups; ++group) {
    const auto scale = V::halves(at);
    const auto least = V::halves(at + (kLeast ? 2 * kPackedOutputs : 0));
    at += 2 * kPackedOutputs * (kLeast ? 2 : 1);
    typename V::Floats part[R];
    float passed[R];
    for (int r = 0; r < R; ++r) {
      part[r] = V::zero();
      passed[r] = 0;
    }
    for (std::int64_t piece = 0; piece < of_group; ++piece, at += kPieceBytes) {
#pragma GCC unroll 8
      for (int i = 0; i < kPieceBytes / kPackedLine; ++i) {
        __builtin_prefetch(at + kPackedAhead + i * kPackedLine);
      }
      Sum sum[R];
      for (int r = 0; r < R; ++r) sum[r].begin(-kZero * totals[r * pieces]);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        typename V::Bytes even, odd;
        if constexpr (kBits == 4) {
          const auto line = V::load(at + i * kPackedLine);
          even = V::low(line);
          odd = V::high(line);
        } else {
          even = V::load(at + 2 * i * kPackedLine);
          odd = V::load(at + (2 * i + 1) * kPackedLine);
        }
        for (int r = 0; r < R; ++r) {
          const std::int8_t* quads = x + r * pieces * kPieceInputs + 8 * i;
          sum[r].add(even, quads, odd, quads + 4);
        }
      }
      for (int r = 0; r < R; ++r) {
        const float by = scales[r * pieces];
        part[r] = V::add(part[r], V::times(sum[r].end(), by));
        if (kLeast) passed[r] += by * static_cast<float>(totals[r * pieces]);
      }
      x += kPieceInputs;
      ++scales;
      ++totals;
    }
    for (int r = 0; r < R; ++r) {
      sums[r] = V::add(sums[r], V::times(part[r], scale));
      if (kLeast) sums[r] = V::add(sums[r], V::times(least, passed[r]));
    }
  }
  for (int r = 0; r < R; ++r) {
    float out[kPackedOutputs];
    V::store(out, sums[r]);
    float* y = g.y + (row + r) * g.y_stride;
    for (std::int64_t o = begin; o < end; ++o) {
      y[o] = out[o - tile * kPackedOutputs] + (g.bias ? g.bias[o] : 0.0f);
    }
  }
}

// A tile stays in the first caches while all rows pass over it.
template <class V, int kBits, bool kLeast>
void packed_range(const PackedGemv& g, std::int64_t begin, std::int64_t end) {
  while (begin < end) {
    const std::int64_t tile = begin / kPackedOutputs;
    const std::int64_t next = (tile + 1) * kPackedOutputs;
    const std::int64_t stop = next < end ? next : end;
    std::int64_t row = 0;
    for (; row + 4 <= g.rows; row += 4) packed_tile<V, kBits, kLeast, 4>(g, tile, row, begin, stop);
    for (; row + 2 <= g.rows; row += 2) packed_tile<V, kBits, kLeast, 2>(g, tile, row, begin, stop);
    if (row < g.rows) packed_tile<V, kBits, kLeast, 1>(g, tile, row, begin, stop);
    begin = stop;
  }
}

template <class V>
void packed_any(const PackedGemv& g, std::int64_t begin, std::int64_t end) {
  if (g.weight.bits == 8) {
    return g.weight.has_least ? packed_range<V, 8, true>(g, begin, end)
                              : packed_range<V, 8, false>(g, begin, end);
  }
  return g.weight.has_least ? packed_range<V, 4, true>(g, begin, end)
                            : packed_range<V, 4, false>(g, begin, end);
}

// The largest number becomes 127. Loops that become vector code and round alike at every level.
inline void quantize_piece(const float* x, std::int8_t* levels, float& scale, std::int32_t& total) {
  constexpr std::uint32_t kInfinite = 0x7f800000u;
  constexpr float kTiny = 1e-30f;        // what is smaller is zero: its inverse has to be finite
  constexpr float kShift = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
  constexpr std::int32_t kShifted = 0x4b400000;
  std::uint32_t most = 0;  // magnitudes are ordered as their bits are
  for (int i = 0; i < kPieceInputs; ++i) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(x[i]) & 0x7fffffffu;
    most = most > bits ? most : bits;
  }
  const float largest = std::bit_cast<float>(most);
  const float inverse = most < kInfinite && largest > kTiny ? 127.0f / largest : 0.0f;
  total = 0;
  if (inverse == 0.0f) {
    std::memset(levels, 0, kPieceInputs);
    scale = most < kInfinite ? 0.0f : std::numeric_limits<float>::quiet_NaN();
    return;
  }
  for (int i = 0; i < kPieceInputs; ++i) {
    const float shifted = x[i] * inverse + kShift;
    const std::int32_t level = std::bit_cast<std::int32_t>(shifted) - kShifted;
    levels[i] = static_cast<std::int8_t>(level);
    total += level;
  }
  scale = largest / 127.0f;
}

inline void quantize_rows_by_pieces(const float* x, std::int64_t x_stride, std::int64_t rows,
                                    std::int64_t inputs, const ByteRows& out) {
  const std::int64_t pieces = (inputs + kPieceInputs - 1) / kPieceInputs;
  for (std::int64_t row = 0; row < rows; ++row, x += x_stride) {
    for (std::int64_t piece = 0; piece < pieces; ++piece) {
      const std::int64_t index = row * pieces + piece, first = piece * kPieceInputs;
      float last[kPieceInputs] = {};
      const float* from = x + first;
      if (inputs - first < kPieceInputs) {
        std::memcpy(last, from, sizeof(float) * static_cast<std::size_t>(inputs - first));
        from = last;
      }
      quantize_piece(from, out.levels + index * kPieceInputs, out.scales[index], out.totals[index]);
    }
  }
}

template <class V>
PackedKernels packed_kernels() {
  return {packed_any<V>, quantize_rows_by_pieces};
}

}  // namespace
}  // namespace omnima::kernels

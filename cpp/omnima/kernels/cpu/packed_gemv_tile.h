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

inline void ask_for_piece(const std::uint8_t* at, std::int64_t bytes) {
#pragma GCC unroll 8
  for (std::int64_t i = 0; i < bytes; i += kPackedLine) __builtin_prefetch(at + kPackedAhead + i);
}

// Activations of some rows, beginning with a piece.
template <int R>
struct RowsOfPieces {
  const std::int8_t* levels;
  const float* scales;
  const std::int32_t* totals;
  std::int64_t pieces;

  RowsOfPieces(const PackedGemv& g, std::int64_t row) : pieces(g.weight.pieces()) {
    levels = g.x.levels + row * pieces * kPieceInputs;
    scales = g.x.scales + row * pieces;
    totals = g.x.totals + 2 * row * pieces;
  }
  void next() {
    levels += kPieceInputs;
    ++scales;
    totals += 2;
  }
  const std::int8_t* quads(int r, int first) const {
    return levels + r * pieces * kPieceInputs + 4 * first;
  }
  float scale(int r) const { return scales[r * pieces]; }
  // Of the halves from..to of the piece.
  std::int32_t total(int r, int from, int to) const {
    const std::int32_t* both = totals + 2 * r * pieces;
    return from == to - 1 ? both[from] : both[0] + both[1];
  }
};

// The sums of products of lines of a piece, kFrom..kTo of its four pairs of quads.
template <class V, int kBits, int kFrom, int kTo, int R>
inline void add_lines(typename V::template Sum<kBits> (&sum)[R], const std::uint8_t* at,
                      const RowsOfPieces<R>& x) {
#pragma GCC unroll 4
  for (int i = kFrom; i < kTo; ++i) {
    typename V::Bytes even, odd;
    if constexpr (kBits == 4) {
      const auto line = V::load(at + i * kPackedLine);
      even = V::low(line);
      odd = V::high(line);
    } else {
      even = V::load(at + 2 * i * kPackedLine);
      odd = V::load(at + (2 * i + 1) * kPackedLine);
    }
    for (int r = 0; r < R; ++r) sum[r].add(even, x.quads(r, 2 * i), odd, x.quads(r, 2 * i + 1));
  }
}

// A group's sums: of its products, and what its least numbers are to be multiplied with.
template <class V, int kBits, bool kLeast, int kPart, int R>
struct GroupSums;

template <class V, int kBits, bool kLeast, int R>
struct GroupSums<V, kBits, kLeast, 0, R> {
  typename V::Floats products[R];
  float passed[R];

  GroupSums() {
    for (int r = 0; r < R; ++r) {
      products[r] = V::zero();
      passed[r] = 0;
    }
  }
  void add(const std::uint8_t* at, std::int32_t zero, const RowsOfPieces<R>& x) {
    typename V::template Sum<kBits> sum[R];
    for (int r = 0; r < R; ++r) sum[r].begin(-zero * x.total(r, 0, 2));
    add_lines<V, kBits, 0, 4, R>(sum, at, x);
    for (int r = 0; r < R; ++r) {
      products[r] = V::add(products[r], V::times(sum[r].end(), x.scale(r)));
      if (kLeast) passed[r] += x.scale(r) * static_cast<float>(x.total(r, 0, 2));
    }
  }
};

template <class V, int kBits, bool kLeast, int kPart, int R>
struct GroupSums {
  static constexpr int kHalves = kPart / static_cast<int>(kHalfPiece);
  typename V::Floats products[R], passed[R];

  GroupSums() {
    for (int r = 0; r < R; ++r) products[r] = passed[r] = V::zero();
  }
  void add(const std::uint8_t* at, std::int32_t zero, const RowsOfPieces<R>& x) {
    constexpr std::int64_t kBytes = kPackedOutputs * (kLeast ? 2 : 1);
    const std::uint8_t* levels = at + 2 / kHalves * kBytes;
    add_part<0>(at, levels, zero, x);
    if constexpr (kHalves == 1) add_part<1>(at + kBytes, levels, zero, x);
  }

 private:
  template <int kFrom>
  void add_part(const std::uint8_t* at, const std::uint8_t* levels, std::int32_t zero,
                const RowsOfPieces<R>& x) {
    typename V::template Sum<kBits> sum[R];
    for (int r = 0; r < R; ++r) sum[r].begin(-zero * x.total(r, kFrom, kFrom + kHalves));
    add_lines<V, kBits, 2 * kFrom, 2 * (kFrom + kHalves), R>(sum, levels, x);
    const auto by = V::signed_bytes(at);
    for (int r = 0; r < R; ++r) {
      const auto scaled = V::times(V::times(sum[r].end(), by), x.scale(r));
      products[r] = V::add(products[r], scaled);
      if constexpr (kLeast) {
        const auto total = static_cast<float>(x.total(r, kFrom, kFrom + kHalves));
        const auto above = V::times(V::bytes(at + kPackedOutputs), x.scale(r) * total);
        passed[r] = V::add(passed[r], above);
      }
    }
  }
};

// Groups of one piece: the loop that most formats take, whose sums stay in registers.
template <class V, int kBits, bool kLeast, int kZero, int R>
inline void add_pieces(const std::uint8_t* at, std::int64_t pieces, RowsOfPieces<R> x,
                       typename V::Floats (&sums)[R]) {
  constexpr std::int64_t kScales = 2 * kPackedOutputs * (kLeast ? 2 : 1);
  constexpr std::int64_t kBytes = kPieceInputs * kPackedOutputs * kBits / 8;
  for (std::int64_t piece = 0; piece < pieces; ++piece, at += kScales + kBytes, x.next()) {
    ask_for_piece(at + kScales, kBytes);
    typename V::template Sum<kBits> sum[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) sum[r].begin(-kZero * x.total(r, 0, 2));
    add_lines<V, kBits, 0, 4, R>(sum, at + kScales, x);
    const auto scale = V::halves(at);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const auto products = V::times(sum[r].end(), x.scale(r));
      sums[r] = V::add(sums[r], V::times(products, scale));
    }
    if constexpr (kLeast) {
      const auto least = V::halves(at + 2 * kPackedOutputs);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const float passed = x.scale(r) * static_cast<float>(x.total(r, 0, 2));
        sums[r] = V::add(sums[r], V::times(least, passed));
      }
    }
  }
}

// Rows of the product that pass over a tile at once.
template <class V, int kBits, bool kLeast, int kPart, int R>
inline void packed_tile(const PackedGemv& g, std::int64_t tile, std::int64_t row,
                        std::int64_t begin, std::int64_t end) {
  constexpr std::int32_t kZero = kBits == 8 ? 128 : kLeast ? 0 : 8;
  const Packed& w = g.weight;
  const std::int64_t of_group = w.group_pieces(), groups = w.groups(), bytes = w.piece_bytes();
  RowsOfPieces<R> x(g, row);
  const std::uint8_t* at = w.data + tile * w.tile_bytes();
  typename V::Floats sums[R];
  for (auto& sum : sums) sum = V::zero();
  const bool alone = kPart == 0 && of_group == 1;
  if (alone) add_pieces<V, kBits, kLeast, kZero, R>(at, groups, x, sums);
  for (std::int64_t group = 0; group < (alone ? 0 : groups); ++group) {
    const auto scale = V::halves(at);
    const auto least = V::halves(at + (kLeast ? 2 * kPackedOutputs : 0));
    at += 2 * kPackedOutputs * (kLeast ? 2 : 1);
    GroupSums<V, kBits, kLeast, kPart, R> of;
    for (std::int64_t piece = 0; piece < of_group; ++piece, at += bytes, x.next()) {
      ask_for_piece(at, kPieceInputs * kPackedOutputs * kBits / 8);
      of.add(at, kZero, x);
    }
    for (int r = 0; r < R; ++r) {
      sums[r] = V::add(sums[r], V::times(of.products[r], scale));
      if (kLeast) sums[r] = V::add(sums[r], V::times(least, of.passed[r]));
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
template <class V, int kBits, bool kLeast, int kPart>
void packed_range(const PackedGemv& g, std::int64_t begin, std::int64_t end) {
  while (begin < end) {
    const std::int64_t tile = begin / kPackedOutputs;
    const std::int64_t next = (tile + 1) * kPackedOutputs;
    const std::int64_t stop = next < end ? next : end;
    std::int64_t row = 0;
    for (; row + 4 <= g.rows; row += 4) {
      packed_tile<V, kBits, kLeast, kPart, 4>(g, tile, row, begin, stop);
    }
    for (; row + 2 <= g.rows; row += 2) {
      packed_tile<V, kBits, kLeast, kPart, 2>(g, tile, row, begin, stop);
    }
    if (row < g.rows) packed_tile<V, kBits, kLeast, kPart, 1>(g, tile, row, begin, stop);
    begin = stop;
  }
}

template <class V, int kBits, bool kLeast>
void packed_parts(const PackedGemv& g, std::int64_t begin, std::int64_t end) {
  switch (g.weight.part) {
    case 0:
      return packed_range<V, kBits, kLeast, 0>(g, begin, end);
    case 16:
      return packed_range<V, kBits, kLeast, 16>(g, begin, end);
    case 32:
      return packed_range<V, kBits, kLeast, 32>(g, begin, end);
    default:
      return;
  }
}

template <class V>
void packed_any(const PackedGemv& g, std::int64_t begin, std::int64_t end) {
  if (g.weight.bits == 8) {
    return g.weight.has_least ? packed_parts<V, 8, true>(g, begin, end)
                              : packed_parts<V, 8, false>(g, begin, end);
  }
  return g.weight.has_least ? packed_parts<V, 4, true>(g, begin, end)
                            : packed_parts<V, 4, false>(g, begin, end);
}

// The largest number becomes 127. Loops that become vector code and round alike at every level.
inline void quantize_piece(const float* x, std::int8_t* levels, float& scale,
                           std::int32_t* totals) {
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
  totals[0] = totals[1] = 0;
  if (inverse == 0.0f) {
    std::memset(levels, 0, kPieceInputs);
    scale = most < kInfinite ? 0.0f : std::numeric_limits<float>::quiet_NaN();
    return;
  }
  for (int i = 0; i < kPieceInputs; ++i) {
    const float shifted = x[i] * inverse + kShift;
    const std::int32_t level = std::bit_cast<std::int32_t>(shifted) - kShifted;
    levels[i] = static_cast<std::int8_t>(level);
    totals[i / kHalfPiece] += level;
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
      quantize_piece(from, out.levels + index * kPieceInputs, out.scales[index],
                     out.totals + 2 * index);
    }
  }
}

template <class V>
PackedKernels packed_kernels() {
  return {packed_any<V>, quantize_rows_by_pieces};
}

}  // namespace
}  // namespace omnima::kernels

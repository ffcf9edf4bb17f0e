// The loops of packed_gemv, shared by its levels; V is a level's way to hold 16 outputs. All is
// private to the level's file.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "omnima/kernels/cpu/packed_gemv.h"

namespace omnima::kernels {
namespace {

// Weights are asked for this far ahead of their use: the memory's latency at a core's full rate.
constexpr std::int64_t kPackedAhead = 6144;

// What a pass over tiles asks for meanwhile. Some lines a piece: where several passes meet the same
// tiles, each asks for a share of the tiles that come next.
struct Ahead {
  const std::uint8_t* next;
  std::int64_t lines;  // a piece

  void ask() {
    for (std::int64_t i = 0; i < lines; ++i) __builtin_prefetch(next + i * kPackedLine);
    next += lines * kPackedLine;
  }
};

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

// Sums of R rows for T tiles of outputs side by side. One that few others stand beside is split, so
// that an addition need not wait for the one before.
template <class V, int kBits, int R, int T>
struct TileSums {
  typename V::template Sum<kBits, (R * T < 8)> at[T][R];

  void begin(std::int32_t zero, const RowsOfPieces<R>& x, int from, int to) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const std::int32_t offset = -zero * x.total(r, from, to);
#pragma GCC unroll 2
      for (int t = 0; t < T; ++t) at[t][r].begin(offset);
    }
  }
  // Adds the products of lines of a piece, kFrom..kTo of its four pairs of quads; the pieces of the
  // tiles lie `apart`.
  template <int kFrom, int kTo>
  void add_lines(const std::uint8_t* from, std::int64_t apart, const RowsOfPieces<R>& x) {
#pragma GCC unroll 4
    for (int i = kFrom; i < kTo; ++i) {
      typename V::Bytes even[T], odd[T];
#pragma GCC unroll 2
      for (int t = 0; t < T; ++t) {
        const std::uint8_t* of_tile = from + t * apart;
        if constexpr (kBits == 4) {
          const auto line = V::load(of_tile + i * kPackedLine);
          even[t] = V::low(line);
          odd[t] = V::high(line);
        } else {
          even[t] = V::load(of_tile + 2 * i * kPackedLine);
          odd[t] = V::load(of_tile + (2 * i + 1) * kPackedLine);
        }
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const auto quad = V::quad(x.quads(r, 2 * i)), next = V::quad(x.quads(r, 2 * i + 1));
#pragma GCC unroll 2
        for (int t = 0; t < T; ++t) at[t][r].add(even[t], quad, odd[t], next);
      }
    }
  }
};

// A group's sums: of its products, and what its least numbers are to be multiplied with.
template <class V, int kBits, bool kLeast, int kPart, int R, int T>
struct GroupSums;

template <class V, int kBits, bool kLeast, int R, int T>
struct GroupSums<V, kBits, kLeast, 0, R, T> {
  typename V::Floats products[T][R];
  float passed[R];

  GroupSums() {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      for (int t = 0; t < T; ++t) products[t][r] = V::zero();
      passed[r] = 0;
    }
  }
  void add(const std::uint8_t* at, std::int64_t apart, std::int32_t zero,
           const RowsOfPieces<R>& x) {
    TileSums<V, kBits, R, T> sums;
    sums.begin(zero, x, 0, 2);
    sums.template add_lines<0, 4>(at, apart, x);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
      for (int t = 0; t < T; ++t) {
        products[t][r] = V::add(products[t][r], V::times(sums.at[t][r].end(), x.scale(r)));
      }
      if (kLeast) passed[r] += x.scale(r) * static_cast<float>(x.total(r, 0, 2));
    }
  }
  float least(int, int r) const { return passed[r]; }
};

template <class V, int kBits, bool kLeast, int kPart, int R, int T>
struct GroupSums {
  static constexpr int kHalves = kPart / static_cast<int>(kHalfPiece);
  typename V::Floats products[T][R], passed[T][R];

  GroupSums() {
    for (int t = 0; t < T; ++t) {
      for (int r = 0; r < R; ++r) products[t][r] = passed[t][r] = V::zero();
    }
  }
  void add(const std::uint8_t* at, std::int64_t apart, std::int32_t zero,
           const RowsOfPieces<R>& x) {
    constexpr std::int64_t kBytes = kPackedOutputs * (kLeast ? 2 : 1);
    const std::uint8_t* levels = at + 2 / kHalves * kBytes;
    add_part<0>(at, levels, apart, zero, x);
    if constexpr (kHalves == 1) add_part<1>(at + kBytes, levels, apart, zero, x);
  }
  const typename V::Floats& least(int t, int r) const { return passed[t][r]; }

 private:
  template <int kFrom>
  void add_part(const std::uint8_t* at, const std::uint8_t* levels, std::int64_t apart,
                std::int32_t zero, const RowsOfPieces<R>& x) {
    TileSums<V, kBits, R, T> sums;
    sums.begin(zero, x, kFrom, kFrom + kHalves);
    sums.template add_lines<2 * kFrom, 2 * (kFrom + kHalves)>(levels, apart, x);
#pragma GCC unroll 2
    for (int t = 0; t < T; ++t) {
      const auto by = V::signed_bytes(at + t * apart);
      for (int r = 0; r < R; ++r) {
        const auto scaled = V::times(V::times(sums.at[t][r].end(), by), x.scale(r));
        products[t][r] = V::add(products[t][r], scaled);
        if constexpr (kLeast) {
          const auto total = static_cast<float>(x.total(r, kFrom, kFrom + kHalves));
          const auto least = V::bytes(at + t * apart + kPackedOutputs);
          passed[t][r] = V::add(passed[t][r], V::times(least, x.scale(r) * total));
        }
      }
    }
  }
};

// Groups of one piece: the loop that most formats take, whose sums stay in registers.
template <class V, int kBits, bool kLeast, int kZero, int R, int T>
inline void add_pieces(const std::uint8_t* at, std::int64_t apart, std::int64_t pieces,
                       RowsOfPieces<R> x, Ahead ahead, typename V::Floats (&sums)[T][R]) {
  constexpr std::int64_t kScales = 2 * kPackedOutputs * (kLeast ? 2 : 1);
  constexpr std::int64_t kBytes = kPieceInputs * kPackedOutputs * kBits / 8;
  for (std::int64_t piece = 0; piece < pieces; ++piece, at += kScales + kBytes, x.next()) {
    if constexpr (T > 1) {
      ahead.ask();
    } else {
#pragma GCC unroll 8
      for (std::int64_t i = 0; i < kBytes; i += kPackedLine) {
        __builtin_prefetch(at + kScales + kPackedAhead + i);
      }
    }
    TileSums<V, kBits, R, T> of;
    of.begin(kZero, x, 0, 2);
    of.template add_lines<0, 4>(at + kScales, apart, x);
#pragma GCC unroll 2
    for (int t = 0; t < T; ++t) {
      const auto scale = V::halves(at + t * apart);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const auto products = V::times(of.at[t][r].end(), x.scale(r));
        sums[t][r] = V::add(sums[t][r], V::times(products, scale));
      }
      if constexpr (kLeast) {
        const auto least = V::halves(at + t * apart + 2 * kPackedOutputs);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const float passed = x.scale(r) * static_cast<float>(x.total(r, 0, 2));
          sums[t][r] = V::add(sums[t][r], V::times(least, passed));
        }
      }
    }
  }
}

// Rows of the product that pass over T tiles at once.
template <class V, int kBits, bool kLeast, int kPart, int R, int T>
inline void packed_tiles(const PackedGemv& g, std::int64_t tile, std::int64_t row,
                         std::int64_t begin, std::int64_t end, Ahead ahead) {
  constexpr std::int32_t kZero = kBits == 8 ? 128 : kLeast ? 0 : 8;
  const Packed& w = g.weight;
  const std::int64_t of_group = w.group_pieces(), groups = w.groups(), bytes = w.piece_bytes();
  const std::int64_t apart = w.tile_bytes();
  RowsOfPieces<R> x(g, row);
  const std::uint8_t* at = w.data + tile * apart;
  typename V::Floats sums[T][R];
  for (int t = 0; t < T; ++t) {
    for (auto& sum : sums[t]) sum = V::zero();
  }
  const bool alone = kPart == 0 && of_group == 1;
  if (alone) add_pieces<V, kBits, kLeast, kZero, R, T>(at, apart, groups, x, ahead, sums);
  for (std::int64_t group = 0; group < (alone ? 0 : groups); ++group) {
    const std::uint8_t* scales = at;
    at += 2 * kPackedOutputs * (kLeast ? 2 : 1);
    GroupSums<V, kBits, kLeast, kPart, R, T> of;
    for (std::int64_t piece = 0; piece < of_group; ++piece, at += bytes, x.next()) {
      if (T == 1) ahead.next = at + kPackedAhead;
      ahead.ask();
      of.add(at, apart, kZero, x);
    }
    for (int t = 0; t < T; ++t) {
      const auto scale = V::halves(scales + t * apart);
      const auto least = V::halves(scales + t * apart + (kLeast ? 2 * kPackedOutputs : 0));
      for (int r = 0; r < R; ++r) {
        sums[t][r] = V::add(sums[t][r], V::times(of.products[t][r], scale));
        if (kLeast) sums[t][r] = V::add(sums[t][r], V::times(least, of.least(t, r)));
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    float out[T * kPackedOutputs];
    for (int t = 0; t < T; ++t) V::store(out + t * kPackedOutputs, sums[t][r]);
    float* y = g.y + (row + r) * g.y_stride;
    for (std::int64_t o = begin; o < end; ++o) {
      y[o] = out[o - tile * kPackedOutputs] + (g.bias ? g.bias[o] : 0.0f);
    }
  }
}

// The rows from `row` on.
template <class V, int kBits, bool kLeast, int kPart>
void packed_rows(const PackedGemv& g, std::int64_t tile, std::int64_t row, std::int64_t begin,
                 std::int64_t end) {
  const Ahead ahead{nullptr, g.weight.level_bytes() / kPackedLine};
  for (; row + 4 <= g.rows; row += 4) {
    packed_tiles<V, kBits, kLeast, kPart, 4, 1>(g, tile, row, begin, end, ahead);
  }
  for (; row + 2 <= g.rows; row += 2) {
    packed_tiles<V, kBits, kLeast, kPart, 2, 1>(g, tile, row, begin, end, ahead);
  }
  if (row < g.rows) packed_tiles<V, kBits, kLeast, kPart, 1, 1>(g, tile, row, begin, end, ahead);
}

// A tile stays in the first caches while all rows pass over it; or two of them, where a level has
// the registers: what is read of a row then meets both.
template <class V, int kBits, bool kLeast, int kPart>
void packed_range(const PackedGemv& g, std::int64_t begin, std::int64_t end) {
  constexpr int kRows = V::kRowsOfTwo;
  while (begin < end) {
    const std::int64_t tile = begin / kPackedOutputs;
    std::int64_t stop = std::min((tile + 1) * kPackedOutputs, end), row = 0;
    if constexpr (kRows > 0) {
      if (g.rows >= kRows && stop < end) {
        const Packed& w = g.weight;
        const std::int64_t passes = g.rows / kRows, two = std::min(stop + kPackedOutputs, end);
        const std::int64_t lines = 2 * w.tile_bytes() / kPackedLine + 1;
        const std::int64_t share = (lines - 1) / (passes * w.pieces()) + 1;
        Ahead ahead{w.data + (tile + 2) * w.tile_bytes(), share};
        for (; row + kRows <= g.rows; row += kRows) {
          packed_tiles<V, kBits, kLeast, kPart, kRows, 2>(g, tile, row, begin, two, ahead);
          ahead.next += share * w.pieces() * kPackedLine;
        }
        packed_rows<V, kBits, kLeast, kPart>(g, tile, row, begin, stop);
        begin = stop;
        stop = two;
      }
    }
    packed_rows<V, kBits, kLeast, kPart>(g, begin / kPackedOutputs, row, begin, stop);
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

// Of a piece whose largest magnitude has these bits: what its numbers are multiplied with, so that
// the largest becomes 127. 0 where that is no number or as good as zero: then all levels are 0.
inline float inverse_of(std::uint32_t most, float& scale) {
  constexpr std::uint32_t kInfinite = 0x7f800000u;
  constexpr float kTiny = 1e-30f;  // what is smaller is zero: its inverse has to be finite
  const float largest = std::bit_cast<float>(most);
  if (most < kInfinite && largest > kTiny) {
    scale = largest / 127.0f;
    return 127.0f / largest;
  }
  scale = most < kInfinite ? 0.0f : std::numeric_limits<float>::quiet_NaN();
  return 0.0f;
}

// Bits of a number without its sign, which are ordered as magnitudes are.
constexpr std::int32_t kMagnitude = 0x7fffffff;
constexpr float kShift = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
constexpr std::int32_t kShifted = 0x4b400000;

// Rounds a piece: its levels, and the sums of those of each half.
inline void round_plainly(const float* x, std::int8_t* levels, float& scale, std::int32_t* totals) {
  std::uint32_t most = 0;
  for (int i = 0; i < kPieceInputs; ++i) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(x[i]) & kMagnitude;
    most = most > bits ? most : bits;
  }
  const float inverse = inverse_of(most, scale);
  totals[0] = totals[1] = 0;
  if (inverse == 0.0f) {
    std::memset(levels, 0, kPieceInputs);
    return;
  }
  for (int i = 0; i < kPieceInputs; ++i) {
    const float shifted = x[i] * inverse + kShift;
    const std::int32_t level = std::bit_cast<std::int32_t>(shifted) - kShifted;
    levels[i] = static_cast<std::int8_t>(level);
    totals[i / kHalfPiece] += level;
  }
}

template <class V>
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
      V::round(from, out.levels + index * kPieceInputs, out.scales[index], out.totals + 2 * index);
    }
  }
}

template <class V>
PackedKernels packed_kernels() {
  return {packed_any<V>, quantize_rows_by_pieces<V>};
}

}  // namespace
}  // namespace omnima::kernels

// packed_gemv where many rows meet a tile of outputs: a tile register takes a piece of 16 or 8 rows
// at once. Fewer rows and weights in parts take avx512vnni.
#ifdef OMNIMA_X86
// GCC 12 warns of its own header's deliberately undefined vectors (GCC bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <atomic>

#include "omnima/kernels/cpu/packed_gemv_tile.h"

namespace omnima::kernels {

PackedKernels packed_kernels_avx512vnni();

namespace {

// Tile registers, which the compiler wants as plain numbers: 0 and 1 are products and activations
// of 16 rows, 2 and 3 those of 8, 4 the weights of a piece.
constexpr int kQuads = kPieceInputs / 4;

// GCC does not see that all of it is read (only its first bytes): so no stack holds it.
struct alignas(64) TileShapes {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {kPackedLine, kPieceInputs, kPackedLine, kPieceInputs, kPackedLine};
  std::uint8_t rows[16] = {16, 16, 8, 8, kQuads};
};
constinit const TileShapes tile_shapes;

// A piece's levels less their zero, one a signed byte.
template <int kBits, int kZero>
inline void write_lines(const std::uint8_t* piece, std::uint8_t* lines) {
  const __m512i zero = _mm512_set1_epi8(static_cast<char>(kZero));
  if constexpr (kBits == 8) {
#pragma GCC unroll 8
    for (int i = 0; i < kQuads; ++i) {
      const __m512i line = _mm512_loadu_si512(piece + i * kPackedLine);
      _mm512_store_si512(lines + i * kPackedLine, _mm512_xor_si512(line, zero));
    }
    return;
  }
  const __m512i mask = _mm512_set1_epi8(15);
#pragma GCC unroll 4
  for (int i = 0; i < kQuads / 2; ++i) {
    const __m512i both = _mm512_loadu_si512(piece + i * kPackedLine);
    const __m512i low = _mm512_and_si512(both, mask);
    const __m512i high = _mm512_and_si512(_mm512_srli_epi16(both, 4), mask);
    _mm512_store_si512(lines + 2 * i * kPackedLine, _mm512_sub_epi8(low, zero));
    _mm512_store_si512(lines + (2 * i + 1) * kPackedLine, _mm512_sub_epi8(high, zero));
  }
}

// sums [R rows, 16 outputs] of levels.
template <int R>
inline void multiply_piece(const std::uint8_t* weights, const std::int8_t* x, std::int64_t stride,
                           std::int32_t* sums) {
  _tile_loadd(4, weights, kPackedLine);
  if constexpr (R == 16) {
    _tile_zero(0);
    _tile_loadd(1, x, stride);
    _tile_dpbssd(0, 1, 4);
    _tile_stored(0, sums, kPackedLine);
  } else {
    _tile_zero(2);
    _tile_loadd(3, x, stride);
    _tile_dpbssd(2, 3, 4);
    _tile_stored(2, sums, kPackedLine);
  }
}

inline __m512 halves_at(const std::uint8_t* from) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}

// Pieces whose products are made before the first of them is read: what a tile register stores can
// be read only once it has reached the cache.
constexpr std::int64_t kAtOnce = 4;

// packed_tile of packed_gemv_tile.h for R rows: the same operations in the same order.
// kPieces: a group has several pieces; their sums stay in registers, else those of the rows do.
template <int kBits, bool kLeast, bool kPieces, int R>
inline void amx_tile(const PackedGemv& g, std::int64_t tile, std::int64_t row, std::int64_t begin,
                     std::int64_t end) {
  constexpr int kZero = kBits == 8 ? 128 : kLeast ? 0 : 8;
  constexpr std::int64_t kPieceBytes = kPieceInputs * kPackedOutputs * kBits / 8;
  constexpr std::int64_t kScaleBytes = 2 * kPackedOutputs * (kLeast ? 2 : 1);
  const Packed& w = g.weight;
  const std::int64_t pieces = w.pieces(), of_group = w.group_pieces();
  const std::int8_t* x = g.x.levels + row * pieces * kPieceInputs;
  const float* scales = g.x.scales + row * pieces;
  const std::int32_t* totals = g.x.totals + 2 * row * pieces;
  const std::uint8_t* at = w.data + tile * w.tile_bytes();
  alignas(64) std::uint8_t lines[kAtOnce][kQuads * kPackedLine];
  alignas(64) std::int32_t products[kAtOnce][R * kPackedOutputs];
  alignas(64) float out[R][kPackedOutputs] = {};
  float passed[R];
  __m512 sums[R], scale = _mm512_setzero_ps(), least = scale;
  for (auto& sum : sums) sum = _mm512_setzero_ps();
  std::int64_t in_group = 0;  // pieces of the group that have been read
  for (std::int64_t first = 0; first < pieces; first += kAtOnce) {
    const std::int64_t count = first + kAtOnce < pieces ? kAtOnce : pieces - first;
    const std::uint8_t* next = at;
    for (std::int64_t i = 0, of = in_group; i < count; ++i, next += kPieceBytes) {
      if (of == 0) next += kScaleBytes;
      of = of + 1 == of_group ? 0 : of + 1;
#pragma GCC unroll 8
      for (int line = 0; line < kPieceBytes / kPackedLine; ++line) {
        __builtin_prefetch(next + kPackedAhead + line * kPackedLine);
      }
      write_lines<kBits, kZero>(next, lines[i]);
    }
    std::atomic_signal_fence(std::memory_order_seq_cst);  // what is loaded has been written
    for (std::int64_t i = 0; i < count; ++i) {
      multiply_piece<R>(lines[i], x + (first + i) * kPieceInputs, pieces * kPieceInputs,
                        products[i]);
    }
    for (std::int64_t i = 0; i < count; ++i, ++scales, totals += 2) {
      if (in_group == 0) {
        scale = halves_at(at);
        if (kLeast) least = halves_at(at + 2 * kPackedOutputs);
        at += kScaleBytes;
        if (kLeast) std::memset(passed, 0, sizeof(passed));
      }
      at += kPieceBytes;
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const float by = scales[r * pieces];
        const __m512i whole = _mm512_load_si512(products[i] + r * kPackedOutputs);
        const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(whole), _mm512_set1_ps(by));
        sums[r] = _mm512_add_ps(sums[r], kPieces ? scaled : _mm512_mul_ps(scaled, scale));
        const std::int32_t* halves = totals + 2 * r * pieces;
        if (kLeast) passed[r] += by * static_cast<float>(halves[0] + halves[1]);
      }
      if (++in_group < of_group) continue;
      in_group = 0;
      if (!kPieces && !kLeast) continue;
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        __m512 all = kPieces ? _mm512_load_ps(out[r]) : sums[r];
        if (kPieces) all = _mm512_add_ps(all, _mm512_mul_ps(sums[r], scale));
        if (kLeast) all = _mm512_add_ps(all, _mm512_mul_ps(least, _mm512_set1_ps(passed[r])));
        if (kPieces) _mm512_store_ps(out[r], all);
        sums[r] = kPieces ? _mm512_setzero_ps() : all;
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R && !kPieces; ++r) _mm512_store_ps(out[r], sums[r]);
  for (int r = 0; r < R; ++r) {
    float* y = g.y + (row + r) * g.y_stride;
    for (std::int64_t o = begin; o < end; ++o) {
      y[o] = out[r][o - tile * kPackedOutputs] + (g.bias ? g.bias[o] : 0.0f);
    }
  }
}

// The rows from 8 on in tile registers; what is left of them is the levels' below.
template <int kBits, bool kLeast, bool kPieces>
void amx_range(const PackedGemv& g, std::int64_t begin, std::int64_t end) {
  const std::int64_t last = g.rows / 8 * 8;
  _tile_loadconfig(&tile_shapes);
  for (std::int64_t at = begin; at < end;) {
    const std::int64_t tile = at / kPackedOutputs;
    const std::int64_t next = (tile + 1) * kPackedOutputs;
    const std::int64_t stop = next < end ? next : end;
    std::int64_t row = 0;
    for (; row + 16 <= last; row += 16) {
      amx_tile<kBits, kLeast, kPieces, 16>(g, tile, row, at, stop);
    }
    if (row < last) amx_tile<kBits, kLeast, kPieces, 8>(g, tile, row, at, stop);
    at = stop;
  }
  _tile_release();
}

template <int kBits>
auto amx_any(const Packed& weight) {
  if (weight.group_pieces() > 1) {
    return weight.has_least ? amx_range<kBits, true, true> : amx_range<kBits, false, true>;
  }
  return weight.has_least ? amx_range<kBits, true, false> : amx_range<kBits, false, false>;
}

void amx_gemv(const PackedGemv& g, std::int64_t begin, std::int64_t end) {
  static const auto below = packed_kernels_avx512vnni().gemv;
  const std::int64_t first = g.weight.part != 0 ? 0 : g.rows / 8 * 8;
  const std::int64_t pieces = g.weight.pieces();
  if (first > 0) {
    const auto range = g.weight.bits == 8 ? amx_any<8>(g.weight) : amx_any<4>(g.weight);
    range(g, begin, end);
  }
  if (first == g.rows) return;
  PackedGemv rest = g;
  rest.rows = g.rows - first;
  rest.y = g.y + first * g.y_stride;
  rest.x = {g.x.levels + first * pieces * kPieceInputs, g.x.scales + first * pieces,
            g.x.totals + 2 * first * pieces};
  below(rest, begin, end);
}

}  // namespace

PackedKernels packed_kernels_amx() {
  PackedKernels kernels = packed_kernels_avx512vnni();
  kernels.gemv = amx_gemv;
  return kernels;
}

}  // namespace omnima::kernels
#endif

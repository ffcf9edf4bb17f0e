// half_gemv in tile registers: 32 outputs, as they lie in the matrix, meet 16 or 32 rows.
#ifdef OMNIMA_X86
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // of GCC 12's own header (GCC bug 105593)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#define OMNIMA_LEVEL amx
#include <atomic>
#include <cstring>

#include "omnima/kernels/cpu/half_gemv.h"
#include "omnima/kernels/cpu/tiles_amx.h"

namespace omnima::kernels {
namespace {

using namespace amx;

constexpr std::int64_t kNumbers = 2 * kTileGroups;  // of depth, of a step
constexpr std::int64_t kSize = sizeof(bfloat16);

std::int64_t steps_of(std::int64_t inputs) { return (inputs + kNumbers - 1) / kNumbers; }

// Panels of 16 rows; of each the steps; of each 16 lines: a pair of neighbouring inputs of each
// row.
std::int64_t rows_bytes(std::int64_t rows, std::int64_t inputs) {
  return (rows + kTileRows - 1) / kTileRows * steps_of(inputs) * kTileBytes;
}

__mmask16 first_of(std::int64_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xffff : count <= 0 ? 0 : (1 << count) - 1);
}

void pack(const float* x, std::int64_t first, std::int64_t last, std::int64_t inputs,
          void* packed) {
  for (std::int64_t row = first; row < last; ++row) {
    char* out = static_cast<char*>(packed) + row / kTileRows * steps_of(inputs) * kTileBytes +
                row % kTileRows * 2 * kSize;
    for (std::int64_t i = 0; i < inputs; i += kNumbers, out += kTileBytes) {
      const float* from = x + row * inputs + i;
      const __m512 low = _mm512_maskz_loadu_ps(first_of(inputs - i), from);
      const __m512 high = _mm512_maskz_loadu_ps(first_of(inputs - i - 16), from + 16);
      const __m512bh both = _mm512_cvtne2ps_pbh(high, low);
      std::uint32_t pairs[kTileGroups];
      std::memcpy(pairs, &both, sizeof(both));
#pragma GCC unroll 16
      for (int g = 0; g < kTileGroups; ++g) {
        std::memcpy(out + g * kTileLine, &pairs[g], sizeof(pairs[g]));
      }
    }
  }
}

// sums += 32 numbers of depth. kTall: more than 16 outputs; kWide: two panels of rows.
template <bool kTall, bool kWide>
inline __attribute__((always_inline)) void add_step(const char* left, std::int64_t row_bytes,
                                                    const char* right, std::int64_t panel) {
  _tile_loadd(6, right, kTileLine);
  _tile_loadd(4, left, row_bytes);
  _tile_dpbf16ps(0, 4, 6);
  if constexpr (kTall) {
    _tile_loadd(5, left + kTileRows * row_bytes, row_bytes);
    _tile_dpbf16ps(2, 5, 6);
  }
  if constexpr (kWide) {
    _tile_loadd(7, right + panel, kTileLine);
    _tile_dpbf16ps(1, 4, 7);
    if constexpr (kTall) _tile_dpbf16ps(3, 5, 7);
  }
}

struct Block {
  std::int64_t first, count;  // outputs, at most 32
  const char* rest;           // what their last step takes, filled up with zeros
};

// y [rows, outputs] = sums [outputs, kTilePanel rows] + bias.
inline void write(const HalfGemv& g, const Block& block, std::int64_t row, std::int64_t rows,
                  const float* sums) {
  const __m512i lines =
      _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                         _mm512_set1_epi32(kTilePanel));
  for (std::int64_t at = 0; at < block.count; at += 16) {
    const __mmask16 here = first_of(block.count - at);
    const __m512 bias =
        g.bias ? _mm512_maskz_loadu_ps(here, g.bias + block.first + at) : _mm512_setzero_ps();
    for (std::int64_t r = 0; r < rows; ++r) {
      const __m512 own = _mm512_i32gather_ps(lines, sums + at * kTilePanel + r, 4);
      _mm512_mask_storeu_ps(g.y + (row + r) * g.y_stride + block.first + at, here,
                            _mm512_add_ps(own, bias));
    }
  }
}

template <bool kTall, bool kWide>
inline void multiply(const HalfGemv& g, const Block& block, std::int64_t row) {
  const std::int64_t whole = g.inputs / kNumbers, panel = steps_of(g.inputs) * kTileBytes;
  const std::int64_t row_bytes = g.inputs * kSize;
  const char* left = reinterpret_cast<const char*>(g.weight + block.first * g.inputs);
  const char* right = static_cast<const char*>(g.x) + row / kTileRows * panel;
  _tile_zero(0);
  _tile_zero(1);
  if constexpr (kTall) {
    _tile_zero(2);
    _tile_zero(3);
  }
  for (std::int64_t i = 0; i < whole; ++i) {
    add_step<kTall, kWide>(left + i * kTileLine, row_bytes, right + i * kTileBytes, panel);
  }
  if (block.rest != nullptr) {
    add_step<kTall, kWide>(block.rest, kTileLine, right + whole * kTileBytes, panel);
  }
  alignas(64) float sums[kTileStrip * kTilePanel];
  store_sums<kTall>(sums, kTilePanel);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  const std::int64_t rows = g.rows - row < kTilePanel ? g.rows - row : kTilePanel;
  write(g, block, row, rows, sums);
}

template <bool kTall>
inline void all_rows(const HalfGemv& g, const Block& block) {
  for (std::int64_t row = 0; row < g.rows; row += kTilePanel) {
    if (g.rows - row > kTileRows) {
      multiply<kTall, true>(g, block, row);
    } else {
      multiply<kTall, false>(g, block, row);
    }
  }
}

void gemv(const HalfGemv& g, std::int64_t begin, std::int64_t end) {
  const std::int64_t over = g.inputs % kNumbers;
  alignas(64) char rest[kTileStrip * kTileLine];
  std::int64_t shaped = 0;
  for (std::int64_t o = begin; o < end; o += kTileStrip) {
    Block block{o, end - o < kTileStrip ? end - o : kTileStrip, nullptr};
    if (block.count != shaped) {
      shaped = block.count;
      _tile_loadconfig(&shapes_by_rows.of[shaped]);
    }
    if (over > 0) {
      std::memset(rest, 0, sizeof(rest));
      for (std::int64_t i = 0; i < block.count; ++i) {
        std::memcpy(rest + i * kTileLine, g.weight + (o + i + 1) * g.inputs - over,
                    static_cast<std::size_t>(over * kSize));
      }
      std::atomic_signal_fence(std::memory_order_seq_cst);
      block.rest = rest;
    }
    if (block.count > kTileRows) {
      all_rows<true>(g, block);
    } else {
      all_rows<false>(g, block);
    }
  }
  if (shaped > 0) _tile_release();
}

}  // namespace

HalfGemvKernels half_gemv_kernels_amx() { return {rows_bytes, pack, gemv}; }

}  // namespace omnima::kernels
#endif

// Part of gemm_body.h: products of bfloat16 in tile registers. A block of 32 x 32 sums fills four
// of them; two hold halves of a strip, two halves of a panel.
#pragma once

#include <atomic>

#include "omnima/kernels/cpu/gemm.h"
#include "omnima/kernels/cpu/tiles_amx.h"
#include "omnima/kernels/cpu/vector.h"

namespace omnima::kernels::OMNIMA_LEVEL {

// What is left of a depth behind its whole tiles, filled up with zeros.
struct alignas(64) DepthRest {
  char left[kTileStrip * kTileLine], right[kTileGroups * kPanelLine];

  void take_left(const char* from, const GemmStrip& strip, std::int64_t groups) {
    std::memset(left, 0, sizeof(left));
    for (std::int64_t i = 0; i < strip.rows; ++i) {
      std::memcpy(left + i * kTileLine, from + i * strip.row_bytes,
                  static_cast<std::size_t>(groups) * sizeof(Pair));
    }
    std::memset(right, 0, sizeof(right));
  }
  void take_right(const char* from, std::int64_t groups) {
    std::memcpy(right, from, static_cast<std::size_t>(groups * kPanelLine));
    std::atomic_signal_fence(std::memory_order_seq_cst);  // all is written before it is read
  }
};

// Sums go straight to whole rows of float32; else by way of memory of our own.
template <bool kBoth>
void multiply_tiles(const GemmStrip& strip, const char* panel, std::int64_t cols,
                    std::int64_t groups, const GemmTarget<bfloat16>& whole) {
  const char* left = static_cast<const char*>(strip.data);
  const std::int64_t step = strip.group_bytes * kTileGroups, tiles = groups / kTileGroups;
  const std::int64_t rest = groups % kTileGroups;
  alignas(64) float sums[kTileStrip * kTilePanel];
  DepthRest last;
  if (rest > 0) last.take_left(left + tiles * step, strip, rest);
  for (std::int64_t j = 0; j < cols; j += kTilePanel, panel += groups * kPanelLine) {
    const std::int64_t width = cols - j < kTilePanel ? cols - j : kTilePanel;
    const GemmTarget<bfloat16> target = whole.from(0, j);
    const bool straight = target.store == nullptr && width == kTilePanel;
    if (straight && target.add) {
      load_sums<kBoth>(target.sum, target.stride);
    } else {
      _tile_zero(0);
      _tile_zero(1);
      if constexpr (kBoth) {
        _tile_zero(2);
        _tile_zero(3);
      }
    }
    for (std::int64_t i = 0; i < tiles; ++i) {
      add_tiles<kBoth>(left + i * step, strip.row_bytes, panel + i * kTileGroups * kPanelLine);
    }
    if (rest > 0) {
      last.take_right(panel + tiles * kTileGroups * kPanelLine, rest);
      add_tiles<kBoth>(last.left, kTileLine, last.right);
    }
    if (straight) {
      store_sums<kBoth>(target.sum, target.stride);
      continue;
    }
    store_sums<kBoth>(sums, kTilePanel);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    for (std::int64_t i = 0; i < strip.rows; ++i) {
      const auto row = reinterpret_cast<const Vector*>(sums + i * kTilePanel);
      finish_row(row, width, target.from(i, 0));
    }
  }
}

inline void multiply_on_tiles(const GemmStrip& strip, const void* panels, std::int64_t cols,
                              std::int64_t depth, const GemmTarget<bfloat16>& target) {
  const char* panel = static_cast<const char*>(panels);
  const std::int64_t groups = (depth + 1) / 2;
  _tile_loadconfig(&shapes_by_rows.of[strip.rows]);
  if (strip.rows > kTileRows) {
    multiply_tiles<true>(strip, panel, cols, groups, target);
  } else {
    multiply_tiles<false>(strip, panel, cols, groups, target);
  }
  _tile_release();
}

// One tile of 32 rows by 16 groups, of which `rows` and `numbers` are there.
inline void pack_tile(const MatrixView<bfloat16>& a, std::int64_t rows, std::int64_t numbers,
                      bfloat16* out) {
  constexpr std::int64_t kNumbers = 2 * kTileGroups;
  if (rows < kTileStrip || numbers < kNumbers) std::memset(out, 0, kTileStrip * kTileLine);
  if (a.col == 1) {
    for (std::int64_t i = 0; i < rows; ++i) {
      std::memcpy(out + i * kNumbers, a.data + i * a.row,
                  static_cast<std::size_t>(numbers) * sizeof(bfloat16));
    }
    return;
  }
  if (rows < kTileStrip || numbers < kNumbers) {
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t k = 0; k < numbers; ++k) out[i * kNumbers + k] = *a.from(i, k).data;
    }
    return;
  }
  for (std::int64_t first = 0; first < kTileStrip; first += kTileRows) {
    Bits pairs[kTileGroups];  // of neighbouring depth, a row a lane
#pragma GCC unroll 16
    for (int g = 0; g < kTileGroups; ++g) {
      pairs[g] = halves(a.from(first, 2 * g).data) | halves(a.from(first, 2 * g + 1).data) << 16;
    }
    transpose(pairs);
    std::memcpy(out + first * kNumbers, pairs, sizeof(pairs));
  }
}

// A packed strip: its tiles one behind the other.
inline void pack_tiles(MatrixView<bfloat16> a, std::int64_t rows, std::int64_t depth,
                       void* strips) {
  constexpr std::int64_t kNumbers = 2 * kTileGroups;
  auto* out = static_cast<bfloat16*>(strips);
  for (std::int64_t i = 0; i < rows; i += kTileStrip) {
    const std::int64_t count = rows - i < kTileStrip ? rows - i : kTileStrip;
    for (std::int64_t k = 0; k < depth; k += kNumbers, out += kTileStrip * kNumbers) {
      pack_tile(a.from(i, k), count, depth - k < kNumbers ? depth - k : kNumbers, out);
    }
  }
}

}  // namespace omnima::kernels::OMNIMA_LEVEL

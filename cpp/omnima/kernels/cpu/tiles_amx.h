// Tile registers for sums of 32 x 32 (AMX): two rows of two, which meet halves of a strip and
// halves of a panel. Included by level files only.
#pragma once

#ifndef OMNIMA_LEVEL
#error "tiles_amx.h is for <kernel>_<level>.cpp files, which define OMNIMA_LEVEL"
#endif

#include <immintrin.h>

#include <cstdint>

namespace omnima::kernels::OMNIMA_LEVEL {

constexpr std::int64_t kTileRows = 16;    // of sums
constexpr std::int64_t kTileGroups = 16;  // of depth, a pair of numbers each
constexpr std::int64_t kTileLine = 64;    // bytes of a register's row
constexpr std::int64_t kTileStrip = 2 * kTileRows, kTilePanel = 2 * kTileRows;
constexpr std::int64_t kPanelLine = 2 * kTileLine;
constexpr std::int64_t kTileBytes = kTileRows * kTileLine;

// Registers 0 to 3: the sums, row by row. 4 and 5: a strip's halves. 6 and 7: a panel's.
struct alignas(64) TileShapes {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};
};

// By the rows of a strip. Constants: GCC does not see that all of one is read, only its beginning.
struct ShapesByRows {
  TileShapes of[kTileStrip + 1];
  constexpr ShapesByRows() : of{} {
    for (std::int64_t rows = 1; rows <= kTileStrip; ++rows) {
      const std::int64_t upper = rows < kTileRows ? rows : kTileRows, lower = rows - upper;
      const std::int64_t heights[8] = {upper, upper, lower,     lower,
                                       upper, lower, kTileRows, kTileRows};
      for (int i = 0; i < 8; ++i) {
        of[rows].rows[i] = static_cast<std::uint8_t>(heights[i]);
        of[rows].row_bytes[i] = heights[i] > 0 ? kTileLine : 0;
      }
    }
  }
};
constinit const ShapesByRows shapes_by_rows;

// sums += 16 groups of a strip times those of a panel. A panel passes by: the first cache is the
// strip's.
template <bool kBoth>
inline __attribute__((always_inline)) void add_tiles(const char* left, std::int64_t row_bytes,
                                                     const char* right) {
  _tile_stream_loadd(6, right, kPanelLine);
  _tile_loadd(4, left, row_bytes);
  _tile_dpbf16ps(0, 4, 6);
  _tile_stream_loadd(7, right + kTileLine, kPanelLine);
  _tile_dpbf16ps(1, 4, 7);
  if constexpr (kBoth) {
    _tile_loadd(5, left + kTileRows * row_bytes, row_bytes);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
}

template <bool kBoth>
inline __attribute__((always_inline)) void load_sums(const float* from, std::int64_t stride) {
  const std::int64_t bytes = stride * static_cast<std::int64_t>(sizeof(float));
  _tile_loadd(0, from, bytes);
  _tile_loadd(1, from + kTileRows, bytes);
  if constexpr (kBoth) {
    _tile_loadd(2, from + kTileRows * stride, bytes);
    _tile_loadd(3, from + kTileRows * stride + kTileRows, bytes);
  }
}

template <bool kBoth>
inline __attribute__((always_inline)) void store_sums(float* to, std::int64_t stride) {
  const std::int64_t bytes = stride * static_cast<std::int64_t>(sizeof(float));
  _tile_stored(0, to, bytes);
  _tile_stored(1, to + kTileRows, bytes);
  if constexpr (kBoth) {
    _tile_stored(2, to + kTileRows * stride, bytes);
    _tile_stored(3, to + kTileRows * stride + kTileRows, bytes);
  }
}

}  // namespace omnima::kernels::OMNIMA_LEVEL

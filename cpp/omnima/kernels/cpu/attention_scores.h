// Part of attention_body.h: the products of a tile, and its scores as the softmax takes them:
// capped, biased, masked, dropped.
#pragma once

#include <algorithm>

#include "omnima/kernels/cpu/attention_tiles.h"

namespace omnima::kernels::OMNIMA_LEVEL {

// Calls f(strip, its first row) for the strips of a [rows, depth].
template <class T, class F>
void for_strips(const MatrixView<T>& a, std::int64_t rows, std::int64_t depth, char* packed, F f) {
  const auto& gemm = gemm_table<T>();
  const bool in_place = gemm.reads_rows && a.col == 1 && depth % gemm.group == 0;
  if (!in_place) gemm.pack_left(a, rows, depth, packed);
  const std::int64_t bytes = gemm.strip_bytes(depth);
  for (std::int64_t i = 0; i < rows; i += gemm.strip_rows) {
    const std::int64_t count = std::min(gemm.strip_rows, rows - i);
    if (in_place) {
      f(gemm.strip_in_place(a.from(i, 0), count), i);
    } else {
      f(gemm.packed_strip(packed + i / gemm.strip_rows * bytes, count), i);
    }
  }
}

// scores [queries, width] = left [queries, dim] times packed columns.
template <class T>
void score(const Tile& tile, const MatrixView<T>& left, std::int64_t dim, const char* columns,
           char* strip_memory, float* scores) {
  const auto& gemm = gemm_table<T>();
  GemmTarget<T> target;
  target.sum = scores;
  target.stride = tile.width;
  const char* panels = columns + tile.begin / gemm.panel_cols * gemm.panel_bytes(dim);
  for_strips(left, tile.queries, dim, strip_memory, [&](const GemmStrip& strip, std::int64_t row) {
    gemm.multiply(strip, panels, tile.width, dim, target.from(row, 0));
  });
}

// sums [queries, dim] += weights [queries, the tile's keys] times rows packed over a block's keys.
template <class T>
void add_weighted(const Tile& tile, const T* weights, std::int64_t dim, const KeyBlock& block,
                  const char* rows, char* strip_memory, float* sums) {
  const auto& gemm = gemm_table<T>();
  GemmTarget<T> target;
  target.sum = sums;
  target.add = true;
  target.stride = dim;
  const std::int64_t depth = round_up(tile.end - tile.begin, gemm.group);
  const char* from = rows + tile.begin * gemm.panel_cols * gemm.packed_bytes;
  for_strips(MatrixView<T>{weights, tile.width, 1}, tile.queries, depth, strip_memory,
             [&](const GemmStrip& strip, std::int64_t row) {
               for (std::int64_t j = 0; j < dim; j += gemm.panel_cols) {
                 gemm.multiply(strip, from + j / gemm.panel_cols * gemm.panel_bytes(block.count),
                               std::min(gemm.panel_cols, dim - j), depth, target.from(row, j));
               }
             });
}

// sums [keys, dim] += weights^T times rows packed over the tile's queries.
template <class T>
void add_transposed(const Tile& tile, const T* weights, std::int64_t dim, const char* rows,
                    char* strip_memory, float* sums) {
  const auto& gemm = gemm_table<T>();
  GemmTarget<T> target;
  target.sum = sums + tile.begin * dim;
  target.add = true;
  target.stride = dim;
  for_strips(MatrixView<T>{weights, 1, tile.width}, tile.end - tile.begin, tile.queries,
             strip_memory, [&](const GemmStrip& strip, std::int64_t row) {
               gemm.multiply(strip, rows, dim, tile.queries, target.from(row, 0));
             });
}

// Masks the keys of [begin, end) in a row of scores that lie in blocks which the query does not
// see.
template <class T>
void mask_blocks(const AttentionTask<T>& task, std::int64_t head, std::int64_t token,
                 std::int64_t origin, std::int64_t begin, std::int64_t end, float* row) {
  const std::int64_t size = task.blocks.size, start = token - place(task, token);
  const std::int64_t own = (token - start) / size;
  std::int64_t of_keys = (origin + begin - start) / size;
  for (std::int64_t j = begin; j < end; ++of_keys) {
    const std::int64_t next = std::min(end, start + (of_keys + 1) * size - origin);
    if (!task.blocks.sees(task.first_head + head, own, of_keys))
      std::fill(row + j, row + next, kMasked);
    j = next;
  }
}

// Masks what the query of `token` may not see in its row of scores.
template <class T>
void mask_row(const AttentionTask<T>& task, const KeyBlock& block, const Tile& tile,
              std::int64_t head, std::int64_t token, float* row) {
  const std::int64_t origin = block.first + tile.begin;
  const std::int64_t begin = std::max<std::int64_t>(0, first_seen(task, token) - origin);
  const std::int64_t end = std::clamp<std::int64_t>(token + 1 - origin, 0, tile.width);
  std::fill(row, row + std::min(begin, tile.width), kMasked);
  std::fill(row + end, row + tile.width, kMasked);
  if (task.blocks.size > 0) mask_blocks(task, head, token, origin, begin, end, row);
}

inline std::uint32_t scrambled(std::uint32_t x) {
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}

template <class T>
void dropout_factors(const AttentionTask<T>& task, std::int64_t head, std::int64_t token,
                     std::int64_t first, std::int64_t count, float* factors) {
  const std::uint64_t seed = task.dropout_seed + static_cast<std::uint64_t>(head);
  const std::uint32_t of_row = scrambled(
      static_cast<std::uint32_t>(seed) ^
      scrambled(static_cast<std::uint32_t>(seed >> 32) + static_cast<std::uint32_t>(token)));
  const auto least = static_cast<std::uint32_t>(task.dropout * 4294967296.0);
  const float kept = 1.0f / (1.0f - task.dropout);
#pragma omp simd
  for (std::int64_t j = 0; j < count; ++j) {
    const std::uint32_t drawn = scrambled(of_row + static_cast<std::uint32_t>(first + j));
    factors[j] = drawn < least ? 0.0f : kept;
  }
}

// Calls f(j, how far back) for the keys of a tile that do not come after the query.
template <class F>
void for_distances(const KeyBlock& block, const Tile& tile, std::int64_t token, F f) {
  const std::int64_t nearest = token - block.first - tile.begin;
  const std::int64_t end = std::min(tile.width, nearest + 1);
#pragma omp simd
  for (std::int64_t j = 0; j < end; ++j) f(j, nearest - j);
}

// A query's scores as the softmax takes them, but for their scale: capped, with the slope of ALiBi
// or a bias by distance, and masked. Where `slopes` is given, it receives the derivative of the
// cap.
template <class T>
void shape_row(const AttentionTask<T>& task, const KeyBlock& block, const Tile& tile,
               std::int64_t head, std::int64_t token, float* row, float* slopes) {
  if (task.softcap > 0) {
    const float inner = task.scale / task.softcap, outer = 1.0f / inner;
#pragma omp simd
    for (std::int64_t j = 0; j < tile.width; ++j) {
      const float t = fast_tanh(row[j] * inner);
      row[j] = t * outer;
      if (slopes != nullptr) slopes[j] = 1.0f - t * t;
    }
  }
  if (task.slopes != nullptr) {
    const float slope = task.slopes[head] / task.scale;
    const auto behind = static_cast<float>(token - block.first - tile.begin);
#pragma omp simd
    for (std::int64_t j = 0; j < tile.width; ++j)
      row[j] += slope * (static_cast<float>(j) - behind);
  }
  if (task.bias != nullptr) {
    const float* bias = task.bias + head * task.bias_stride;
    for_distances(block, tile, token, [&](std::int64_t j, std::int64_t distance) {
      row[j] += bias[distance] / task.scale;
    });
  }
  mask_row(task, block, tile, head, token, row);
}

// All lanes joined by pairs: rows do not wait for each other as in a loop over lanes.
template <class F>
inline float all_lanes(Vector v, F join) {
  Bits lanes;
  for (int i = 0; i < kLanes; ++i) lanes[i] = i;
#pragma GCC unroll 4
  for (int distance = kLanes / 2; distance > 0; distance /= 2) {
    v = join(v, __builtin_shuffle(v, lanes ^ distance));
  }
  return v[0];
}

inline float maximum(const float* row, std::int64_t count) {
  Vector top = load(row);
  for (std::int64_t j = kLanes; j < count; j += kLanes) {
    const Vector x = load(row + j);
    top = x > top ? x : top;
  }
  return all_lanes(top, [](Vector a, Vector b) { return a > b ? a : b; });
}

// Drops weights of a query's row.
template <class T>
void drop_row(const AttentionTask<T>& task, const KeyBlock& block, const Tile& tile,
              std::int64_t head, std::int64_t token, T* weights) {
  float factors[kKeys];
  dropout_factors(task, head, token, block.first + tile.begin, tile.width, factors);
#pragma omp simd
  for (std::int64_t j = 0; j < tile.width; ++j) {
    weights[j] = from_float<T>(to_float(weights[j]) * factors[j]);
  }
}

}  // namespace omnima::kernels::OMNIMA_LEVEL

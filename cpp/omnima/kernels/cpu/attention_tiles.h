// Part of attention_body.h: where a task's pieces lie in memory, how vectors turn by their
// positions, and the tiles of queries and keys.
#pragma once

#include <algorithm>
#include <bit>

#include "omnima/kernels/cpu/attention.h"
#include "omnima/kernels/cpu/gemm.h"
#include "omnima/kernels/cpu/vector.h"
#include "omnima/kernels/cpu/vector_math.h"

namespace omnima::kernels::OMNIMA_LEVEL {

template <class T>
const GemmKernels<T>& gemm_table();

// Of a tile: whole strips of every kernel.
template <class T>
constexpr std::int64_t kQueries = 48;
#ifdef __AMX_BF16__
template <>
constexpr std::int64_t kQueries<bfloat16> = 64;
#endif
constexpr std::int64_t kKeys = 256;  // of a block: what is packed of it stays in the second cache
// A power of two: scaled it is exact, so where a row is masked as a whole, the scaled score less
// its largest is 0 also when the compiler fuses the two.
constexpr float kMasked = -0x1p100f;
constexpr float kLog2e = 1.44269504089f;

inline std::int64_t round_up(std::int64_t x, std::int64_t to) { return (x + to - 1) / to * to; }

// Where everything lies in a task's scratch memory.
template <class T>
struct Scratch {
  Scratch(std::int64_t time, std::int64_t dim, char* memory) : at(memory) {
    const auto& gemm = gemm_table<T>();
    const std::int64_t keys = std::min(kKeys, round_up(time, gemm.panel_cols));
    const std::int64_t columns = keys / gemm.panel_cols * gemm.panel_bytes(dim) + kSpare;
    const std::int64_t wide = round_up(dim, gemm.panel_cols) / gemm.panel_cols;
    const std::int64_t rows = wide * gemm.panel_bytes(keys) + kSpare;
    const std::int64_t tile_rows = wide * gemm.panel_bytes(kQueries<T>) + kSpare;
    const std::int64_t strips = std::max(
        round_up(keys, gemm.strip_rows) / gemm.strip_rows * gemm.strip_bytes(kQueries<T>),
        kQueries<T> / gemm.strip_rows * std::max(gemm.strip_bytes(dim), gemm.strip_bytes(keys)));
    take(queries, time * dim);
    take(keys_turned, keys * dim);
    take(key_columns, columns);
    take(value_columns, columns);
    take(key_rows, rows);
    take(value_rows, rows);
    take(query_rows, tile_rows);
    take(dout_rows, tile_rows);
    take(strip, strips + kSpare);
    take(scores, kQueries<T> * keys);
    take(dscores, kQueries<T> * keys);
    take(weights, kQueries<T> * keys);
    take(dweights, kQueries<T> * keys);
    take(sums, time * dim);
    take(dkeys, time * dim);
    take(dvalues, time * dim);
    take(top, time);
    take(total, time);
  }

  template <class X>
  void take(X*& part, std::int64_t count) {
    part = reinterpret_cast<X*>(at);
    at += round_up(count * static_cast<std::int64_t>(sizeof(X)), 64);
  }

  static constexpr std::int64_t kSpare = 64;  // packing writes whole vectors
  char* at;
  T *queries, *keys_turned;              // [time, dim], [keys, dim]: turned by their positions
  char *key_columns, *value_columns;     // packed: depth dim, columns keys
  char *key_rows, *value_rows;           // packed: depth keys, columns dim
  char *query_rows, *dout_rows, *strip;  // packed, of a tile
  float *scores, *dscores;               // [tile, keys]
  T *weights, *dweights;                 // the same in the storage type
  float* sums;                           // [time, dim]: out, or the gradient of the queries
  float *dkeys, *dvalues;                // [time, dim]
  float *top, *total;                    // [time]: of the scores, in units of log 2; backward: dot
};

template <class T>
std::int64_t place(const AttentionTask<T>& task, std::int64_t token) {
  return task.places == nullptr ? token : task.places[token];
}

// The first token that one may see.
template <class T>
std::int64_t first_seen(const AttentionTask<T>& task, std::int64_t token) {
  const std::int64_t document = token - place(task, token);
  return task.window > 0 ? std::max(document, token + 1 - task.window) : document;
}

// A head's vector, turned by its position.
template <class T>
void turn(const AttentionTask<T>& task, const T* from, std::int64_t token, T* to) {
  const std::int64_t half = task.head_dim / 2;
  if (task.cos == nullptr) {
    std::copy(from, from + task.head_dim, to);
    return;
  }
  const float* cos = task.cos + place(task, token) * half;
  const float* sin = task.sin + place(task, token) * half;
#pragma omp simd
  for (std::int64_t i = 0; i < half; ++i) {
    const float a = to_float(from[i]), b = to_float(from[half + i]);
    to[i] = from_float<T>(a * cos[i] - b * sin[i]);
    to[half + i] = from_float<T>(b * cos[i] + a * sin[i]);
  }
}

// The gradient of turn: turns back and writes.
template <class T>
void turn_back(const AttentionTask<T>& task, const float* from, std::int64_t token, T* to) {
  const std::int64_t half = task.head_dim / 2;
  if (task.cos == nullptr) {
    for (std::int64_t i = 0; i < task.head_dim; ++i) to[i] = from_float<T>(from[i]);
    return;
  }
  const float* cos = task.cos + place(task, token) * half;
  const float* sin = task.sin + place(task, token) * half;
#pragma omp simd
  for (std::int64_t i = 0; i < half; ++i) {
    const float a = from[i], b = from[half + i];
    to[i] = from_float<T>(a * cos[i] + b * sin[i]);
    to[half + i] = from_float<T>(b * cos[i] - a * sin[i]);
  }
}

// Some queries against some keys of a block: [begin, end) are the block's keys that any of the
// queries may see, `width` their number in whole panels.
struct Tile {
  std::int64_t start, queries;  // of the row's tokens
  std::int64_t begin, end, width;
};

struct KeyBlock {
  std::int64_t first, count;
};

template <class T>
Tile tile_of(const AttentionTask<T>& task, const KeyBlock& block, std::int64_t start) {
  const std::int64_t panel = gemm_table<T>().panel_cols;
  Tile tile{start, std::min(kQueries<T>, task.time - start), block.count, 0, 0};
  for (std::int64_t i = start; i < start + tile.queries; ++i) {
    tile.begin = std::min(tile.begin, first_seen(task, i) - block.first);
  }
  tile.begin = std::max<std::int64_t>(0, tile.begin) / panel * panel;
  tile.end = std::min(block.count, start + tile.queries - block.first);
  tile.width = tile.end > tile.begin ? round_up(tile.end - tile.begin, panel) : 0;
  return tile;
}

// Calls f(first token, its document's start, last token) for the documents of a tile's queries.
template <class T, class F>
void for_documents(const AttentionTask<T>& task, const Tile& tile, F f) {
  const std::int64_t end = tile.start + tile.queries;
  for (std::int64_t token = tile.start; token < end;) {
    const std::int64_t first = token, start = token - place(task, token);
    while (++token < end && token - place(task, token) == start) continue;
    f(first, start, token - 1);
  }
}

// The panels of a tile, a bit each, that its queries see by the pattern of blocks.
template <class T>
std::uint64_t seen_panels(const AttentionTask<T>& task, std::int64_t head, const KeyBlock& block,
                          const Tile& tile) {
  const std::int64_t panel = gemm_table<T>().panel_cols, size = task.blocks.size;
  const std::int64_t origin = block.first + tile.begin;
  std::uint64_t seen = 0;
  for_documents(task, tile, [&](std::int64_t first, std::int64_t start, std::int64_t last) {
    const std::int64_t from = std::max(start, origin), to = std::min(last + 1, origin + tile.width);
    for (std::int64_t key = from; key < to;) {
      const std::int64_t of_keys = (key - start) / size;
      const std::int64_t end = std::min(to, start + (of_keys + 1) * size);
      // The first query is the nearest to the keys: what it does not see no later one sees.
      if (task.blocks.sees(task.first_head + head, (first - start) / size, of_keys)) {
        const std::int64_t low = (key - origin) / panel, high = (end - 1 - origin) / panel;
        seen |= (~std::uint64_t{0} >> (63 - high)) & (~std::uint64_t{0} << low);
      }
      key = end;
    }
  });
  return seen;
}

// Calls f(tile) for the parts of a tile that are to be computed: with a pattern of blocks, each
// stretch of panels that some query sees.
template <class T, class F>
void for_parts(const AttentionTask<T>& task, std::int64_t head, const KeyBlock& block,
               const Tile& tile, F f) {
  if (task.blocks.size == 0) return f(tile);
  const std::int64_t panel = gemm_table<T>().panel_cols;
  std::uint64_t seen = seen_panels(task, head, block, tile);
  for (std::int64_t at = 0; seen != 0;) {
    const int hidden = std::countr_zero(seen);
    seen >>= hidden;
    const int shown = std::countr_one(seen);
    seen = shown < 64 ? seen >> shown : 0;
    Tile part = tile;
    part.begin = tile.begin + (at + hidden) * panel;
    part.width = shown * panel;
    part.end = std::min(tile.end, part.begin + part.width);
    at += hidden + shown;
    f(part);
  }
}

}  // namespace omnima::kernels::OMNIMA_LEVEL

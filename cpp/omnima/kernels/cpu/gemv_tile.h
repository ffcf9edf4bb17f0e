// The loops of gemv, shared by its levels. A level gives its vector type V: an anonymous struct, so
// that what is compiled here with the level's flags stays private to the level's file.
#pragma once

#include <algorithm>

#include "omnima/kernels/cpu/gemv.h"

namespace omnima::kernels {

// Weights are asked for this far ahead of their use: the memory's latency at a core's full rate.
// Reading past the last row asks for what the next product reads, or for nothing.
constexpr std::int64_t kFloatsAhead = 2048;

// Rows whose sums of four outputs fit the registers, 32 of 16 lanes or else 16.
template <class V>
constexpr int kRows = V::kWidth == 16 ? 6 : 3;
constexpr int kTogether = 4;  // outputs whose lanes are added up together
constexpr float kNoBias[kTogether] = {};

// Outputs o..o+O of rows r..r+R. One accumulator each: the order of a sum depends on inputs alone.
template <class V, int O, int R>
inline void gemv_tile(const Gemv& g, std::int64_t o, std::int64_t r) {
  typename V::Type sums[O][R];
  for (int i = 0; i < O; ++i) {
    for (int j = 0; j < R; ++j) sums[i][j] = V::zero();
  }
  const float* weight = g.weight + o * g.weight_stride;
  const float* x = g.x + r * g.x_stride;
  std::int64_t k = 0;
  for (; k + V::kWidth <= g.inputs; k += V::kWidth) {
    typename V::Type rows[R];
    for (int j = 0; j < R; ++j) rows[j] = V::load(x + j * g.x_stride + k);
    for (int i = 0; i < O; ++i) {
      const float* at = weight + i * g.weight_stride + k;
      if constexpr (O == 1) __builtin_prefetch(at + kFloatsAhead);
      const auto w = V::load(at);
      for (int j = 0; j < R; ++j) sums[i][j] = V::multiply_add(w, rows[j], sums[i][j]);
    }
  }
  if (const int rest = static_cast<int>(g.inputs - k)) {
    for (int i = 0; i < O; ++i) {
      const auto w = V::load_part(weight + i * g.weight_stride + k, rest);
      for (int j = 0; j < R; ++j) {
        sums[i][j] = V::multiply_add(w, V::load_part(x + j * g.x_stride + k, rest), sums[i][j]);
      }
    }
  }
  if constexpr (O == kTogether) {
    for (int j = 0; j < R; ++j) {
      const typename V::Type row[] = {sums[0][j], sums[1][j], sums[2][j], sums[3][j]};
      V::write_sums(row, g.bias ? g.bias + o : kNoBias, g.y + (r + j) * g.y_stride + o);
    }
  } else {
    for (int i = 0; i < O; ++i) {
      const float bias = g.bias ? g.bias[o + i] : 0.0f;
      for (int j = 0; j < R; ++j) g.y[(r + j) * g.y_stride + o + i] = V::sum(sums[i][j]) + bias;
    }
  }
}

// The first rows of x meet weights that come from memory, in one unbroken stream: a core reads it
// half as fast again as several streams side by side. Later rows meet them in the cache, where four
// outputs at a time save loads of x and steps of adding up lanes.
template <class V, int R>
inline void gemv_rows(const Gemv& g, std::int64_t begin, std::int64_t end, std::int64_t r) {
  std::int64_t o = begin;
  if (r > 0 || g.cached) {
    for (; o + kTogether <= end; o += kTogether) gemv_tile<V, kTogether, R>(g, o, r);
  }
  for (; o < end; ++o) gemv_tile<V, 1, R>(g, o, r);
}

template <class V, int R = kRows<V>>
inline void gemv_part(const Gemv& g, std::int64_t begin, std::int64_t end, std::int64_t r,
                      std::int64_t rows) {
  if constexpr (R > 1) {
    if (rows < R) return gemv_part<V, R - 1>(g, begin, end, r, rows);
  }
  gemv_rows<V, R>(g, begin, end, r);
}

// Weights in the first cache meet some rows at a time, which stay there with them; what comes next
// is asked for in shares.
template <class V>
inline void gemv_cached(const Gemv& g, std::int64_t begin, std::int64_t end) {
  constexpr std::int64_t kLine = 64;
  const std::int64_t parts = (g.rows + kRows<V> - 1) / kRows<V>;
  const std::int64_t groups = (end - begin + kTogether - 1) / kTogether;
  const std::int64_t calls = std::max<std::int64_t>(1, parts * groups);
  const std::int64_t share = (g.next_bytes / calls + kLine) / kLine * kLine;
  std::int64_t asked = 0;
  for (std::int64_t part = 0, r = 0; part < parts; ++part) {
    const std::int64_t rows = (g.rows - r + parts - part - 1) / (parts - part);
    for (std::int64_t o = begin; o < end; o += kTogether) {
      const std::int64_t until = std::min(asked + share, g.next_bytes);
      for (; asked < until; asked += kLine) __builtin_prefetch(g.next + asked);
      gemv_part<V>(g, o, std::min(o + kTogether, end), r, rows);
    }
    r += rows;
  }
}

template <class V>
inline void gemv_range(const Gemv& g, std::int64_t begin, std::int64_t end) {
  if (g.cached) return gemv_cached<V>(g, begin, end);
  // Blocks of outputs small enough to stay in the first caches while all rows pass over them.
  const std::int64_t block = g.rows > kRows<V> ? 16 : end - begin;
  for (std::int64_t o = begin; o < end; o += block) {
    const std::int64_t stop = o + block < end ? o + block : end;
    for (std::int64_t r = 0, parts = (g.rows + kRows<V> - 1) / kRows<V>; parts > 0; --parts) {
      const std::int64_t rows = (g.rows - r + parts - 1) / parts;
      gemv_part<V>(g, o, stop, r, rows);
      r += rows;
    }
  }
}

}  // namespace omnima::kernels

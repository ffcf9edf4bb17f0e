// The loops of gemv, shared by its levels. A level gives its vector type V: an anonymous struct, so
// that what is compiled here with the level's flags stays private to the level's file.
#pragma once

#include "omnima/kernels/cpu/gemv.h"

namespace omnima::kernels {

// Weights are asked for this far ahead of their use: the memory's latency at a core's full rate.
// Reading past the last row asks for what the next product reads, or for nothing.
constexpr std::int64_t kFloatsAhead = 2048;

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
      __builtin_prefetch(at + (O == 1 ? kFloatsAhead : O * g.weight_stride));
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
  for (int i = 0; i < O; ++i) {
    const float bias = g.bias ? g.bias[o + i] : 0.0f;
    for (int j = 0; j < R; ++j) g.y[(r + j) * g.y_stride + o + i] = V::sum(sums[i][j]) + bias;
  }
}

// The first rows of x meet weights that come from memory, in one unbroken stream: a core reads it
// half as fast again as several streams side by side. Later rows meet them in the cache, where four
// outputs at a time save loads of x.
template <class V, int R>
inline void gemv_rows(const Gemv& g, std::int64_t begin, std::int64_t end, std::int64_t r) {
  std::int64_t o = begin;
  if (r > 0) {
    for (; o + 4 <= end; o += 4) gemv_tile<V, 4, R>(g, o, r);
  }
  for (; o < end; ++o) gemv_tile<V, 1, R>(g, o, r);
}

template <class V>
inline void gemv_range(const Gemv& g, std::int64_t begin, std::int64_t end) {
  // Blocks of outputs small enough to stay in the first caches while all rows pass over them.
  const std::int64_t block = g.rows > 4 ? 16 : end - begin;
  for (std::int64_t o = begin; o < end; o += block) {
    const std::int64_t stop = o + block < end ? o + block : end;
    std::int64_t r = 0;
    for (; r + 4 <= g.rows; r += 4) gemv_rows<V, 4>(g, o, stop, r);
    if (g.rows - r == 3) gemv_rows<V, 3>(g, o, stop, r);
    if (g.rows - r == 2) gemv_rows<V, 2>(g, o, stop, r);
    if (g.rows - r == 1) gemv_rows<V, 1>(g, o, stop, r);
  }
}

}  // namespace omnima::kernels

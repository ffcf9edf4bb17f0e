// The loops of cached_heads, shared by its levels; V is a level's vector type. All is private to
// the level's file.
#pragma once

#include <bit>
#include <cstring>
#include <limits>

#include "omnima/kernels/cpu/cached_heads.h"

namespace omnima::kernels {
namespace {

struct OfFloat32 {
  static constexpr int kBytes = 4;
  template <class V>
  static typename V::Type load(const std::uint8_t* p) {
    return V::load(reinterpret_cast<const float*>(p));
  }
};

struct OfBf16 {
  static constexpr int kBytes = 2;
  template <class V>
  static typename V::Type load(const std::uint8_t* p) {
    return V::brain_floats(p);
  }
};

struct OfInt8 {
  static constexpr int kBytes = 1;
  template <class V>
  static typename V::Type load(const std::uint8_t* p) {
    return V::floats(V::signed_bytes(p));
  }
};

// The scores of R queries for P vectors of tokens from `first` on, which is a whole vector; vectors
// that are not whole within [begin, end) are written in part. The values of these tokens, as many
// bytes as their keys, are asked for meanwhile: they are read next.
template <class V, class N, int P, int R>
inline void score_tile(const CachedHead& head, std::int64_t first, std::int64_t begin,
                       std::int64_t end, const float* queries, float* out, std::int64_t stride) {
  typename V::Type sums[P][R];
  const std::uint8_t* at[P];
  const std::uint8_t* values = head.values + N::kBytes * first * whole_tiles(head.dim);
  for (int p = 0; p < P; ++p) {
    const std::int64_t token = first + p * V::kWidth;
    at[p] =
        head.keys + N::kBytes * (token / kCacheTile * kCacheTile * head.dim + token % kCacheTile);
    for (int r = 0; r < R; ++r) sums[p][r] = V::zero();
  }
  for (std::int64_t d = 0; d < head.dim; ++d) {
    typename V::Type keys[P];
    for (int p = 0; p < P; ++p) {
      keys[p] = N::template load<V>(at[p] + N::kBytes * d * kCacheTile);
      __builtin_prefetch(values + N::kBytes * (d * P + p) * V::kWidth);
    }
    for (int r = 0; r < R; ++r) {
      const auto query = V::set(queries[r * head.dim + d]);
      for (int p = 0; p < P; ++p) sums[p][r] = V::multiply_add(keys[p], query, sums[p][r]);
    }
  }
  for (int p = 0; p < P; ++p) {
    const std::int64_t token = first + p * V::kWidth;
    for (int r = 0; r < R; ++r) {
      auto scores = sums[p][r];
      if (head.key_scales) scores = V::multiply(scores, V::load(head.key_scales + token));
      float* row = out + r * stride;
      if (token >= begin && token + V::kWidth <= end) {
        V::store(row + token - begin, scores);
        continue;
      }
      float all[V::kWidth];
      V::store(all, scores);
      for (std::int64_t i = 0; i < V::kWidth; ++i) {
        if (token + i >= begin && token + i < end) row[token + i - begin] = all[i];
      }
    }
  }
}

template <class V, class N, int R>
inline void score_rows(const CachedHead& head, std::int64_t begin, std::int64_t end,
                       const float* queries, float* out, std::int64_t stride) {
  constexpr int kVectors = 2;
  std::int64_t token = begin / V::kWidth * V::kWidth;
  for (; token + kVectors * V::kWidth <= end; token += kVectors * V::kWidth) {
    score_tile<V, N, kVectors, R>(head, token, begin, end, queries, out, stride);
  }
  for (; token < end; token += V::kWidth) {
    score_tile<V, N, 1, R>(head, token, begin, end, queries, out, stride);
  }
}

template <class V, class N>
void score_all(const CachedHead& head, std::int64_t begin, std::int64_t end, const float* queries,
               std::int64_t rows, float* out, std::int64_t stride) {
  for (; rows >= 4; rows -= 4, queries += 4 * head.dim, out += 4 * stride) {
    score_rows<V, N, 4>(head, begin, end, queries, out, stride);
  }
  if (rows == 3) score_rows<V, N, 3>(head, begin, end, queries, out, stride);
  if (rows == 2) score_rows<V, N, 2>(head, begin, end, queries, out, stride);
  if (rows == 1) score_rows<V, N, 1>(head, begin, end, queries, out, stride);
}

// P vectors of numbers from `from` on.
template <class V, class N, int P, int R>
inline void value_part(const CachedHead& head, std::int64_t from, std::int64_t begin,
                       std::int64_t end, const float* weights, std::int64_t stride, float* sums) {
  const std::int64_t width = whole_tiles(head.dim);
  const std::uint8_t* values = head.values + N::kBytes * (begin * width + from);
  typename V::Type made[P][R];
  for (int p = 0; p < P; ++p) {
    for (int r = 0; r < R; ++r) made[p][r] = V::load(sums + r * width + from + p * V::kWidth);
  }
  for (std::int64_t token = 0; token < end - begin; ++token, values += N::kBytes * width) {
    typename V::Type numbers[P];
    for (int p = 0; p < P; ++p)
      numbers[p] = N::template load<V>(values + N::kBytes * p * V::kWidth);
    for (int r = 0; r < R; ++r) {
      const auto weight = V::set(weights[r * stride + token]);
      for (int p = 0; p < P; ++p) made[p][r] = V::multiply_add(numbers[p], weight, made[p][r]);
    }
  }
  for (int p = 0; p < P; ++p) {
    for (int r = 0; r < R; ++r) V::store(sums + r * width + from + p * V::kWidth, made[p][r]);
  }
}

template <class V, class N, int R>
inline void value_rows(const CachedHead& head, std::int64_t begin, std::int64_t end,
                       const float* weights, std::int64_t stride, float* sums) {
  constexpr int kVectors = V::kWidth == 16 ? 4 : 2;
  const std::int64_t width = whole_tiles(head.dim);
  std::int64_t from = 0;
  for (; from + kVectors * V::kWidth <= width; from += kVectors * V::kWidth) {
    value_part<V, N, kVectors, R>(head, from, begin, end, weights, stride, sums);
  }
  for (; from < width; from += V::kWidth) {
    value_part<V, N, 1, R>(head, from, begin, end, weights, stride, sums);
  }
}

template <class V, class N>
void add_all(const CachedHead& head, std::int64_t begin, std::int64_t end, float* weights,
             std::int64_t stride, std::int64_t rows, float* sums) {
  const std::int64_t width = whole_tiles(head.dim), count = end - begin;
  if (head.value_scales) {
    for (std::int64_t r = 0; r < rows; ++r) {
      float* row = weights + r * stride;
      for (std::int64_t i = 0; i < count; ++i) row[i] *= head.value_scales[begin + i];
    }
  }
  for (; rows >= 4; rows -= 4, weights += 4 * stride, sums += 4 * width) {
    value_rows<V, N, 4>(head, begin, end, weights, stride, sums);
  }
  if (rows == 3) value_rows<V, N, 3>(head, begin, end, weights, stride, sums);
  if (rows == 2) value_rows<V, N, 2>(head, begin, end, weights, stride, sums);
  if (rows == 1) value_rows<V, N, 1>(head, begin, end, weights, stride, sums);
}

// To the nearest, ties to even.
inline std::uint16_t bf16_bits(float x) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1)) >> 16;
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  return static_cast<std::uint16_t>(nan ? (bits >> 16) | 0x40u : rounded);
}

// What a number is multiplied with to be a level; its inverse is the scale.
inline float levels_of(const float* x, std::int64_t count, float& scale) {
  constexpr std::uint32_t kInfinite = 0x7f800000u;
  constexpr float kTiny = 1e-30f;  // what is smaller is zero: its inverse has to be finite
  std::uint32_t most = 0;          // magnitudes are ordered as their bits are
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(x[i]) & 0x7fffffffu;
    most = most > bits ? most : bits;
  }
  const float largest = std::bit_cast<float>(most);
  if (most >= kInfinite) {
    scale = std::numeric_limits<float>::quiet_NaN();
    return 0.0f;
  }
  scale = largest > kTiny ? largest / 127.0f : 0.0f;
  return largest > kTiny ? 127.0f / largest : 0.0f;
}

// A token's numbers, `stride` apart.
inline void put_levels(const float* x, std::int64_t count, std::uint8_t* to, std::int64_t stride,
                       float& scale) {
  constexpr float kShift = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
  constexpr std::int32_t kShifted = 0x4b400000;
  const float inverse = levels_of(x, count, scale);
  for (std::int64_t i = 0; i < count; ++i) {
    // Without an inverse x may be infinite, and 0 times infinity is no level.
    const float shifted = inverse == 0.0f ? kShift : x[i] * inverse + kShift;
    to[i * stride] = static_cast<std::uint8_t>(std::bit_cast<std::int32_t>(shifted) - kShifted);
  }
}

inline void write_token(const CachedHead& head, std::int64_t token, const float* key,
                        const float* value) {
  const std::int64_t dim = head.dim, width = whole_tiles(dim), first = token / kCacheTile;
  const std::int64_t at = first * kCacheTile * dim + token % kCacheTile;
  if (head.format == CacheFormat::kInt8) {
    std::uint8_t* values = head.values + token * width;
    put_levels(key, dim, head.keys + at, kCacheTile, head.key_scales[token]);
    put_levels(value, dim, values, 1, head.value_scales[token]);
    std::memset(values + dim, 0, static_cast<std::size_t>(width - dim));
    return;
  }
  if (head.format == CacheFormat::kFloat32) {
    auto* keys = reinterpret_cast<float*>(head.keys) + at;
    auto* values = reinterpret_cast<float*>(head.values) + token * width;
    for (std::int64_t i = 0; i < dim; ++i) keys[i * kCacheTile] = key[i];
    std::memcpy(values, value, sizeof(*values) * static_cast<std::size_t>(dim));
    std::memset(values + dim, 0, sizeof(*values) * static_cast<std::size_t>(width - dim));
    return;
  }
  auto* keys = reinterpret_cast<std::uint16_t*>(head.keys) + at;
  auto* values = reinterpret_cast<std::uint16_t*>(head.values) + token * width;
  for (std::int64_t i = 0; i < dim; ++i) keys[i * kCacheTile] = bf16_bits(key[i]);
  for (std::int64_t i = 0; i < dim; ++i) values[i] = bf16_bits(value[i]);
  std::memset(values + dim, 0, sizeof(*values) * static_cast<std::size_t>(width - dim));
}

template <class V>
void scores_of(const CachedHead& head, std::int64_t begin, std::int64_t end, const float* queries,
               std::int64_t rows, float* out, std::int64_t stride) {
  const auto function = head.format == CacheFormat::kFloat32 ? score_all<V, OfFloat32>
                        : head.format == CacheFormat::kBf16  ? score_all<V, OfBf16>
                                                             : score_all<V, OfInt8>;
  function(head, begin, end, queries, rows, out, stride);
}

template <class V>
void values_of(const CachedHead& head, std::int64_t begin, std::int64_t end, float* weights,
               std::int64_t stride, std::int64_t rows, float* sums) {
  const auto function = head.format == CacheFormat::kFloat32 ? add_all<V, OfFloat32>
                        : head.format == CacheFormat::kBf16  ? add_all<V, OfBf16>
                                                             : add_all<V, OfInt8>;
  function(head, begin, end, weights, stride, rows, sums);
}

template <class V>
CachedHeadKernels cached_kernels() {
  return {write_token, scores_of<V>, values_of<V>};
}

}  // namespace
}  // namespace omnima::kernels

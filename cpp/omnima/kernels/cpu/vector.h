// The widest float vector of a level, by the compiler's vector extension. Included by level files
// only.
#pragma once

#ifndef OMNIMA_LEVEL
#error "vector.h is for <kernel>_<level>.cpp files, which define OMNIMA_LEVEL"
#endif

#include <cstdint>
#include <cstring>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#include "omnima/kernels/cpu/number_types.h"

namespace omnima::kernels::OMNIMA_LEVEL {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Vector __attribute__((vector_size(kLanes * sizeof(float))));

inline Vector load(const float* from) {
  Vector v;
  std::memcpy(&v, from, sizeof(v));
  return v;
}
inline void store(float* to, Vector v) { std::memcpy(to, &v, sizeof(v)); }

typedef std::uint32_t Bits __attribute__((vector_size(kLanes * sizeof(std::uint32_t))));
typedef std::uint16_t Halves __attribute__((vector_size(kLanes * sizeof(std::uint16_t))));

inline Vector load(const bfloat16* from) {
  Halves halves;
  std::memcpy(&halves, from, sizeof(halves));
  return reinterpret_cast<Vector>(__builtin_convertvector(halves, Bits) << 16);
}
#ifdef __AVX512BF16__
inline void store(bfloat16* to, Vector v) {
  const __m256bh halves = _mm512_cvtneps_pbh(v);
  std::memcpy(to, &halves, sizeof(halves));
}
#else
// Rounds to nearest, ties to even; NaN stays NaN.
inline void store(bfloat16* to, Vector v) {
  const Bits bits = reinterpret_cast<Bits>(v);
  const Bits nan = reinterpret_cast<Bits>(v != v);
  const Bits rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const Halves halves =
      __builtin_convertvector((nan & ((bits >> 16) | 0x40u)) | (~nan & rounded), Halves);
  std::memcpy(to, &halves, sizeof(halves));
}
#endif
inline Vector broadcast(float x) { return x - Vector{}; }

inline float sum_of_lanes(Vector v) {
  float sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += v[i];
  return sum;
}

// What a loop over numbers handles at a time: a vector, or what is left at the end.
struct Whole {
  template <class T>
  Vector load(const T* from) const {
    return OMNIMA_LEVEL::load(from);
  }
  template <class T>
  void store(T* to, Vector v) const {
    OMNIMA_LEVEL::store(to, v);
  }
  Vector only(Vector v) const { return v; }
};

// The first `count` numbers of a vector; the others are read as zeros.
struct First {
  std::int64_t count;
  template <class T>
  Vector load(const T* from) const {
    T numbers[kLanes] = {};
    std::memcpy(numbers, from, count * sizeof(T));
    return OMNIMA_LEVEL::load(numbers);
  }
  template <class T>
  void store(T* to, Vector v) const {
    T numbers[kLanes];
    OMNIMA_LEVEL::store(numbers, v);
    std::memcpy(to, numbers, count * sizeof(T));
  }
  Vector only(Vector v) const {
    Vector kept{};
    std::memcpy(&kept, &v, count * sizeof(float));
    return kept;
  }
};

// Calls f(i, part) for the vectors that begin at i.
template <class F>
inline void for_vectors(std::int64_t count, F f) {
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) f(i, Whole{});
  if (i < count) f(i, First{count - i});
}

// The sum over all lanes of f(i, part), in four sums side by side: one would wait for itself.
template <class F>
inline float sum_over_vectors(std::int64_t count, F f) {
  Vector a{}, b{}, c{}, d{};
  std::int64_t i = 0;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
    a += f(i, Whole{});
    b += f(i + kLanes, Whole{});
    c += f(i + 2 * kLanes, Whole{});
    d += f(i + 3 * kLanes, Whole{});
  }
  for (; i + kLanes <= count; i += kLanes) a += f(i, Whole{});
  if (i < count) a += f(i, First{count - i});
  return sum_of_lanes((a + b) + (c + d));
}

}  // namespace omnima::kernels::OMNIMA_LEVEL

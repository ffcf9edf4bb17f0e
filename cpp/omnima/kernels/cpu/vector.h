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

}  // namespace omnima::kernels::OMNIMA_LEVEL

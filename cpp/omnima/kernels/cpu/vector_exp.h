// Powers of two of a vector, as exact as the storage type needs. Included by level files only.
#pragma once

#ifndef OMNIMA_LEVEL
#error "vector_exp.h is for <kernel>_<level>.cpp files, which define OMNIMA_LEVEL"
#endif

#include <type_traits>

#include "omnima/kernels/cpu/vector.h"

namespace omnima::kernels::OMNIMA_LEVEL {

// 2^x for x <= 127: 2^n times a polynomial of the rest in [-1/2, 1/2], whose coefficients are
// those of the least largest relative error. Below 2^-126 exactly zero; NaN stays NaN. The error is
// 3e-6 for bfloat16 and 3e-7 for float.
template <class T>
inline Vector exp2_for(Vector x) {
  const Bits tiny = reinterpret_cast<Bits>(x < -126.0f);
  const Vector shifted = x + 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
  const Vector f = x - (shifted - 12582912.0f);
  Vector p;
  if constexpr (std::is_same_v<T, float>) {
    p = 1.3264727e-3f * f + 9.6715128e-3f;
    p = p * f + 5.5507337e-2f;
    p = p * f + 2.4022242e-1f;
    p = p * f + 6.9314698e-1f;
    p = p * f + 1.0f;
  } else {
    p = 9.5828532e-3f * f + 5.5906426e-2f;
    p = p * f + 2.4024099e-1f;
    p = p * f + 6.9312419e-1f;
    p = p * f + 1.0f;
  }
  const Bits power = reinterpret_cast<Bits>(shifted) << 23;
  return reinterpret_cast<Vector>((reinterpret_cast<Bits>(p) + power) & ~tiny);
}

}  // namespace omnima::kernels::OMNIMA_LEVEL

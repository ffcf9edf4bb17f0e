// A stand-in for the CUDA header of half numbers: what kernels/cuda uses of it, on the CPU.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

struct __half {
  std::uint16_t bits;
};

inline __half __ushort_as_half(std::uint16_t bits) { return {bits}; }
inline float __half2float(__half x) {
  const int exponent = (x.bits >> 10) & 31, mantissa = x.bits & 1023;
  const float sign = (x.bits & 0x8000) != 0 ? -1.0f : 1.0f;
  if (exponent == 31) {
    return mantissa != 0 ? std::numeric_limits<float>::quiet_NaN()
                         : sign * std::numeric_limits<float>::infinity();
  }
  return sign * (exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -24)
                               : std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25));
}

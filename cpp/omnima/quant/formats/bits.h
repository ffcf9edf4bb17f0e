// 16-bit floats and small integers as they lie in files, little-endian.
#pragma once

#include <cstdint>
#include <cstring>

namespace omnima::quant {

inline std::uint16_t load_u16(const std::uint8_t* at) {
  return static_cast<std::uint16_t>(at[0] | at[1] << 8);
}

inline std::uint32_t load_u32(const std::uint8_t* at) {
  return load_u16(at) | static_cast<std::uint32_t>(load_u16(at + 2)) << 16;
}

inline void store_u16(std::uint8_t* at, std::uint16_t bits) {
  at[0] = static_cast<std::uint8_t>(bits);
  at[1] = static_cast<std::uint8_t>(bits >> 8);
}

inline float float_of_bits(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

inline std::uint32_t bits_of_float(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

// IEEE binary16, exactly: below the smallest exponent numbers are multiples of 2^-24.
inline float float_of_half(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000) << 16;
  const std::uint32_t magnitude = half & 0x7fff;
  const float small = static_cast<float>(static_cast<std::int32_t>(magnitude)) * 0x1p-24f;
  const std::uint32_t rebased = (magnitude << 13) + (magnitude >= 0x7c00 ? 224u << 23 : 112u << 23);
  const std::uint32_t bits = magnitude < 0x400 ? bits_of_float(small) : rebased;
  return float_of_bits(sign | bits);
}

// To the nearest, ties to even; beyond the largest to infinity.
inline std::uint16_t half_of_float(float value) {
  const std::uint32_t bits = bits_of_float(value);
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000);
  const std::uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return static_cast<std::uint16_t>(sign | 0x7e00);  // NaN
  if (magnitude >= 0x477ff000) return static_cast<std::uint16_t>(sign | 0x7c00);
  if (magnitude < 0x38800000) {
    // Adding a number whose last bit stands for 2^-24 rounds there.
    const float rounded = float_of_bits(magnitude) + 0.5f;
    return static_cast<std::uint16_t>(sign | (bits_of_float(rounded) - 0x3f000000));
  }
  const std::uint32_t even = magnitude >> 13 & 1;
  return static_cast<std::uint16_t>(sign | ((magnitude + 0xfff + even - (112u << 23)) >> 13));
}

inline float half_at(const std::uint8_t* at) { return float_of_half(load_u16(at)); }

}  // namespace omnima::quant

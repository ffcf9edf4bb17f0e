// 16-bit floats and small integers as they lie in files, little-endian.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

namespace omnima::quant {

// As the machine has them: loads of neighbours become one.
static_assert(std::endian::native == std::endian::little);

inline std::uint16_t load_u16(const std::uint8_t* at) {
  std::uint16_t bits;
  std::memcpy(&bits, at, sizeof(bits));
  return bits;
}

inline void store_u16(std::uint8_t* at, std::uint16_t bits) {
  std::memcpy(at, &bits, sizeof(bits));
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

// 32 levels of 4 bits: a byte holds numbers i (its low bits) and i + 16. Apart from what is made of
// them, each loop becomes vector code.
struct HalfBytes {
  std::uint8_t at[32];

  explicit HalfBytes(const std::uint8_t* bytes) {
    for (int i = 0; i < 16; ++i) at[i] = bytes[i] & 15;
    for (int i = 0; i < 16; ++i) at[16 + i] = bytes[i] >> 4;
  }

  // The fifth bit of each level: number i has bit i of four bytes.
  void add_fifth(const std::uint8_t* bits) {
    std::uint8_t spread[32];
    for (int byte = 0; byte < 4; ++byte) std::memset(spread + 8 * byte, bits[byte], 8);
    for (int i = 0; i < 32; ++i) at[i] |= (spread[i] & kBits[i]) != 0 ? 16 : 0;
  }

  static constexpr std::uint8_t kBits[32]{1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128,
                                          1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
};

// What a block of numbers is scaled by, and its inverse: 0 where that would be infinite, for then
// the half of the scale is 0, and so is every number of the block.
struct Scale {
  float value, inverse;

  explicit Scale(float scale) : value(scale), inverse(1 / scale) {
    if (!std::isfinite(inverse)) inverse = 0;
  }
};

// Whether no number has all bits of its exponent set, as NaN and infinity have.
inline bool all_finite(const float* numbers, std::int64_t count) {
  constexpr std::uint32_t kExponent = 0x7f800000;
  std::uint32_t special = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    special |= (bits_of_float(numbers[i]) & kExponent) == kExponent;
  }
  return special == 0;
}

// A block that holds NaN or infinity is NaN in all its numbers: it begins with its scale.
inline void store_damaged(std::uint8_t* block, std::size_t bytes) {
  std::memset(block, 0, bytes);
  store_u16(block, half_of_float(std::numeric_limits<float>::quiet_NaN()));
}

inline float half_at(const std::uint8_t* at) { return float_of_half(load_u16(at)); }

}  // namespace omnima::quant

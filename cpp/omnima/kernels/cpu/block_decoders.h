// The numbers of stored blocks in registers, for level files alone. A decoder is made of what
// stands in memory at `kBytes` bytes and gives `kNumbers` numbers, V::kWidth at a time: at(i), as
// quant/formats/ computes them, rounding by rounding. Where a block begins with its scale, or with
// scale and least number, the decoder is given the first two halves of the block as floats: those
// of many blocks are widened together.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace omnima::kernels {
namespace {

inline std::uint16_t u16_at(const std::uint8_t* p) {
  std::uint16_t bits;
  std::memcpy(&bits, p, sizeof(bits));
  return bits;
}
inline float half_at(const std::uint8_t* p) { return _cvtsh_ss(u16_at(p)); }

// 32 levels of 4 bits: byte i holds number i in its low bits and number i + 16.
template <class V>
inline typename V::Ints nibbles(const std::uint8_t* p, int i) {
  constexpr int kOfHalf = 16 / V::kWidth;
  const auto bytes = V::bytes(p + i % kOfHalf * V::kWidth);
  return i < kOfHalf ? bytes : V::right(bytes, 4);
}

template <class V>
struct Q8_0 {
  static constexpr int kNumbers = 32, kBytes = 34;
  typename V::Type scale;
  const std::uint8_t* levels;
  Q8_0(const std::uint8_t* p, const float* halves) : scale(V::set(*halves)), levels(p + 2) {}
  typename V::Type at(int i) const {
    return V::multiply(V::floats(V::signed_bytes(levels + i * V::kWidth)), scale);
  }
};

template <class V>
struct Q4_0 {
  static constexpr int kNumbers = 32, kBytes = 18;
  typename V::Levels table;
  const std::uint8_t* levels;
  Q4_0(const std::uint8_t* p, const float* halves)
      : table(V::template levels<false>(*halves, -8, 0)), levels(p + 2) {}
  typename V::Type at(int i) const { return V::template look<false>(table, nibbles<V>(levels, i)); }
};

template <class V>
struct Q4_1 {
  static constexpr int kNumbers = 32, kBytes = 20;
  typename V::Levels table;
  const std::uint8_t* levels;
  Q4_1(const std::uint8_t* p, const float* halves)
      : table(V::template levels<true>(halves[0], 0, halves[1])), levels(p + 4) {}
  typename V::Type at(int i) const { return V::template look<true>(table, nibbles<V>(levels, i)); }
};

template <class V>
inline typename V::Ints fives(const std::uint8_t* levels, std::uint32_t fifth, int i) {
  const auto low = V::both(nibbles<V>(levels, i), V::set(15));
  return V::either(low, V::sixteens(fifth, i * V::kWidth));
}

template <class V>
struct Q5_0 {
  static constexpr int kNumbers = 32, kBytes = 22;
  typename V::Type scale;
  std::uint32_t fifth;
  const std::uint8_t* levels;
  Q5_0(const std::uint8_t* p, const float* halves) : scale(V::set(*halves)), levels(p + 6) {
    std::memcpy(&fifth, p + 2, sizeof(fifth));
  }
  typename V::Type at(int i) const {
    return V::multiply(V::floats(V::add(fives<V>(levels, fifth, i), V::set(-16))), scale);
  }
};

template <class V>
struct Q5_1 {
  static constexpr int kNumbers = 32, kBytes = 24;
  typename V::Type scale, least;
  std::uint32_t fifth;
  const std::uint8_t* levels;
  Q5_1(const std::uint8_t* p, const float* halves)
      : scale(V::set(halves[0])), least(V::set(halves[1])), levels(p + 8) {
    std::memcpy(&fifth, p + 4, sizeof(fifth));
  }
  typename V::Type at(int i) const {
    return V::add(V::multiply(V::floats(fives<V>(levels, fifth, i)), scale), least);
  }
};

// 256 numbers in eight groups with scales and least numbers of 6 bits: quant/formats/super_block.h.
template <class V>
struct Q4K {
  static constexpr int kNumbers = 256, kBytes = 144, kOfGroup = 32 / V::kWidth;
  typename V::Levels table[8];
  const std::uint8_t* levels;
  explicit Q4K(const std::uint8_t* p) : levels(p + 16) {
    const float scale_of_all = half_at(p), least_of_all = half_at(p + 2);
    const std::uint8_t* six = p + 4;
    for (int j = 0; j < 8; ++j) {
      const int scale = j < 4 ? six[j] & 63 : (six[4 + j] & 15) | (six[j - 4] >> 6) << 4;
      const int least = j < 4 ? six[4 + j] & 63 : six[4 + j] >> 4 | (six[j] >> 6) << 4;
      // Below by a number is above by its opposite, to the bit.
      table[j] = V::template levels<true>(scale_of_all * static_cast<float>(scale), 0,
                                          -(least_of_all * static_cast<float>(least)));
    }
  }
  typename V::Type at(int i) const {
    const int group = i / kOfGroup;
    const auto bytes = V::bytes(levels + group / 2 * 32 + i % kOfGroup * V::kWidth);
    return V::template look<true>(table[group], group % 2 == 0 ? bytes : V::right(bytes, 4));
  }
};

// 256 numbers of 6 bits, two of them apart, in groups of 16: quant/formats/q6_k.cpp.
template <class V>
struct Q6K {
  static constexpr int kNumbers = 256, kBytes = 210, kOfGroup = 16 / V::kWidth;
  float scale;
  const std::uint8_t* block;
  explicit Q6K(const std::uint8_t* p) : scale(half_at(p + 208)), block(p) {}
  typename V::Type at(int i) const {
    const int group = i / kOfGroup, half = group / 8, within = group % 8;
    const int part = i % kOfGroup * V::kWidth;
    const auto low = V::bytes(block + half * 64 + within % 4 * 16 + part);
    const auto high = V::bytes(block + 128 + half * 32 + within % 2 * 16 + part);
    const auto level = V::either(V::both(V::right(low, within / 4 * 4), V::set(15)),
                                 V::left(V::both(V::right(high, within / 2 * 2), V::set(3)), 4));
    const float by = scale * static_cast<float>(static_cast<std::int8_t>(block[192 + group]));
    return V::multiply(V::floats(V::add(level, V::set(-32))), V::set(by));
  }
};

}  // namespace
}  // namespace omnima::kernels

// The numbers of stored blocks in registers, for level files alone. A decoder is made of what
// stands in memory at `kBytes` bytes and gives `kNumbers` numbers, V::kWidth at a time: at(i), as
// quant/formats/ computes them, rounding by rounding. Where a block begins with its scale, or with
// scale and least number, the decoder is given the first two halves of the block as floats: those
// of many blocks are widened together.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "omnima/kernels/cpu/block_gemv.h"
#include "omnima/kernels/cpu/normal_floats.h"

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

// Scales and least numbers of the eight groups of a block of 256: quant/formats/super_block.h.
struct EightGroups {
  float scale[8], least[8];
  explicit EightGroups(const std::uint8_t* p) {
    const float scale_of_all = half_at(p), least_of_all = half_at(p + 2);
    const std::uint8_t* six = p + 4;
    for (int j = 0; j < 8; ++j) {
      const int by = j < 4 ? six[j] & 63 : (six[4 + j] & 15) | (six[j - 4] >> 6) << 4;
      const int below = j < 4 ? six[4 + j] & 63 : six[4 + j] >> 4 | (six[j] >> 6) << 4;
      scale[j] = scale_of_all * static_cast<float>(by);
      // Below by a number is above by its opposite, to the bit.
      least[j] = -(least_of_all * static_cast<float>(below));
    }
  }
};

template <class V>
struct Q4K {
  static constexpr int kNumbers = 256, kBytes = 144, kOfGroup = 32 / V::kWidth;
  typename V::Levels table[8];
  const std::uint8_t* levels;
  explicit Q4K(const std::uint8_t* p) : levels(p + 16) {
    const EightGroups groups(p);
    for (int j = 0; j < 8; ++j) {
      table[j] = V::template levels<true>(groups.scale[j], 0, groups.least[j]);
    }
  }
  typename V::Type at(int i) const {
    const int group = i / kOfGroup;
    const auto bytes = V::bytes(levels + group / 2 * 32 + i % kOfGroup * V::kWidth);
    return V::template look<true>(table[group], group % 2 == 0 ? bytes : V::right(bytes, 4));
  }
};

// As Q4K, with a fifth bit of each number apart.
template <class V>
struct Q5K {
  static constexpr int kNumbers = 256, kBytes = 176, kOfGroup = 32 / V::kWidth;
  EightGroups groups;
  const std::uint8_t* block;
  explicit Q5K(const std::uint8_t* p) : groups(p), block(p) {}
  typename V::Type at(int i) const {
    const int group = i / kOfGroup, part = i % kOfGroup * V::kWidth;
    const auto four = V::right(V::bytes(block + 48 + group / 2 * 32 + part), group % 2 * 4);
    const auto fifth = V::both(V::right(V::bytes(block + 16 + part), group), V::set(1));
    const auto level = V::either(V::both(four, V::set(15)), V::left(fifth, 4));
    return V::add(V::multiply(V::floats(level), V::set(groups.scale[group])),
                  V::set(groups.least[group]));
  }
};

// Bytes in which groups of 16 that are 32 numbers apart share two bits each: group i's two bits.
template <class V>
inline typename V::Ints pairs_of_bits(const std::uint8_t* levels, int group, int part) {
  const auto bytes = V::bytes(levels + group / 8 * 32 + group % 2 * 16 + part);
  return V::both(V::right(bytes, group % 8 / 2 * 2), V::set(3));
}

// 256 numbers of 2 bits in groups of 16: quant/formats/q2_k.cpp.
template <class V>
struct Q2K {
  static constexpr int kNumbers = 256, kBytes = 84, kOfGroup = 16 / V::kWidth;
  float scale, least;
  const std::uint8_t* block;
  explicit Q2K(const std::uint8_t* p) : scale(half_at(p + 80)), least(half_at(p + 82)), block(p) {}
  typename V::Type at(int i) const {
    const int group = i / kOfGroup, small = block[group];
    const auto level = pairs_of_bits<V>(block + 16, group, i % kOfGroup * V::kWidth);
    const float by = scale * static_cast<float>(small & 15);
    const float below = least * static_cast<float>(small >> 4);
    return V::add(V::multiply(V::floats(level), V::set(by)), V::set(-below));
  }
};

// 256 numbers of 3 bits, the third apart, in groups of 16: quant/formats/q3_k.cpp.
template <class V>
struct Q3K {
  static constexpr int kNumbers = 256, kBytes = 110, kOfGroup = 16 / V::kWidth;
  float scale;
  const std::uint8_t* block;
  explicit Q3K(const std::uint8_t* p) : scale(half_at(p + 108)), block(p) {}
  typename V::Type at(int i) const {
    const int group = i / kOfGroup, part = i % kOfGroup * V::kWidth;
    const std::uint8_t* six = block + 96;
    const int low = group < 8 ? six[group] & 15 : six[group - 8] >> 4;
    const int high = six[8 + group % 4] >> (group / 4 * 2) & 3;
    const auto third = V::right(V::bytes(block + group % 2 * 16 + part), group / 2);
    const auto level =
        V::either(pairs_of_bits<V>(block + 32, group, part), V::left(V::both(third, V::set(1)), 2));
    const float by = scale * static_cast<float>((low | high << 4) - 32);
    return V::multiply(V::floats(V::add(level, V::set(-4))), V::set(by));
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

// Groups of any size. A decoder is made of group `group` of the block and gives its numbers from
// `first` on, kStep of them: at(first, i), V::kWidth at a time.
struct GroupSizes {
  std::int64_t groups = 1;  // of a block
  std::int64_t numbers;     // of a group
};

// quant/formats/int8.cpp
template <class V>
struct Int8Group {
  static constexpr int kStep = 16;
  static GroupSizes sizes(const Blocks& format) { return {1, format.numbers}; }
  typename V::Type scale;
  const std::uint8_t* levels;
  Int8Group(const GroupSizes&, const std::uint8_t* block, std::int64_t)
      : scale(V::set(half_at(block))), levels(block + 2) {}
  typename V::Type at(std::int64_t first, int i) const {
    return V::multiply(V::floats(V::signed_bytes(levels + first + i * V::kWidth)), scale);
  }
};

// quant/formats/int4.cpp
template <class V, bool kLeast>
struct Int4Group {
  static constexpr int kStep = 32;
  static GroupSizes sizes(const Blocks& format) { return {1, format.numbers}; }
  typename V::Levels table;
  const std::uint8_t* levels;
  Int4Group(const GroupSizes&, const std::uint8_t* block, std::int64_t)
      : levels(block + (kLeast ? 4 : 2)) {
    const float least = kLeast ? half_at(block + 2) : 0.0f;
    table = V::template levels<kLeast>(half_at(block), kLeast ? 0 : -8, least);
  }
  typename V::Type at(std::int64_t first, int i) const {
    return V::template look<kLeast>(table, nibbles<V>(levels + first / 2, i));
  }
};
template <class V>
using Int4 = Int4Group<V, false>;
template <class V>
using Int4Z = Int4Group<V, true>;

// quant/formats/nf4.cpp
template <class V>
struct Nf4 {
  static constexpr int kStep = 32;
  static GroupSizes sizes(const Blocks& format) {
    const std::int64_t groups = format.bytes - 2 - format.numbers / 2;
    return {groups, format.numbers / groups};
  }
  typename V::Table table;
  typename V::Type scale;
  const std::uint8_t* levels;
  Nf4(const GroupSizes& sizes, const std::uint8_t* block, std::int64_t group)
      : table(V::table(kNormalFloats)),
        scale(V::set(half_at(block) * static_cast<float>(block[2 + group]))),
        levels(block + 2 + sizes.groups + group * sizes.numbers / 2) {}
  typename V::Type at(std::int64_t first, int i) const {
    return V::multiply(V::pick(table, nibbles<V>(levels + first / 2, i)), scale);
  }
};

}  // namespace
}  // namespace omnima::kernels

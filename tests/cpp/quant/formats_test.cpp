// Formats of numbers: what is written comes back within its rounding; the values of others by hand.
#include "omnima/quant/formats/formats.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "omnima/core/error.h"
#include "omnima/quant/convert.h"
#include "omnima/quant/formats/bits.h"

namespace omnima::quant {
namespace {

TEST(Halves, EveryOneIsExactAndComesBack) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const float value = float_of_half(half);
    c10::Half theirs;
    theirs.x = half;
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(static_cast<float>(theirs)));
      EXPECT_TRUE(std::isnan(float_of_half(half_of_float(value))));
      continue;
    }
    ASSERT_EQ(value, static_cast<float>(theirs)) << bits;
    ASSERT_EQ(half_of_float(value), half) << bits;
  }
}

TEST(Halves, AreRoundedToTheNearest) {
  at::manual_seed(1);
  const at::Tensor numbers = at::randn({4096}) * at::randn({4096}).mul(8).exp();
  for (int64_t i = 0; i < numbers.numel(); ++i) {
    const auto value = numbers[i].item<float>();
    ASSERT_EQ(half_of_float(value), c10::Half(value).x) << value;
  }
  for (const float value : {65519.0f, 65520.0f, 1e30f, -1e30f, 0x1p-25f, 0x1.8p-25f, 0x1p-24f}) {
    EXPECT_EQ(half_of_float(value), c10::Half(value).x) << value;
  }
}

TEST(Halves, OneSpecialNumberAmongManyIsFound) {
  std::vector<float> numbers(100, -std::numeric_limits<float>::max());
  EXPECT_TRUE(all_finite(numbers.data(), 100));
  for (const float special : {std::numeric_limits<float>::infinity(), NAN}) {
    numbers[77] = -special;
    EXPECT_FALSE(all_finite(numbers.data(), 100));
    EXPECT_TRUE(all_finite(numbers.data(), 77));
  }
}

class EveryFormat : public testing::TestWithParam<const Format*> {};

TEST_P(EveryFormat, IsFoundByNameAndNumber) {
  const Format& format = *GetParam();
  EXPECT_EQ(&format_named(format.name), &format);
  if (format.gguf_type) {
    EXPECT_EQ(format_of_gguf_type(*format.gguf_type), &format);
  }
}

TEST_P(EveryFormat, BlocksOfZerosAreNumbersOfOneSize) {
  const Format& format = *GetParam();
  const at::Tensor blocks = at::zeros({6 * format.bytes}, at::kByte);
  const at::Tensor numbers = dequantized(format, blocks.const_data_ptr(), {3, 2 * format.numbers});
  EXPECT_TRUE(numbers.eq(0).all().item<bool>());
  EXPECT_ANY_THROW(dequantized(format, blocks.const_data_ptr(), {}));
}

TEST_P(EveryFormat, WhatIsWrittenComesBack) {
  const Format& format = *GetParam();
  at::manual_seed(2);
  const at::Tensor numbers = at::randn({5, 4 * format.numbers});
  if (format.quantize == nullptr) {
    EXPECT_THROW(quantized(format, numbers), core::DataError);
    return;
  }
  const at::Tensor blocks = quantized(format, numbers);
  EXPECT_EQ(blocks.numel(), 20 * format.bytes);
  const at::Tensor again = dequantized(format, blocks.const_data_ptr(), numbers.sizes());
  const double apart = (again - numbers).abs().max().item<double>();
  // Half of the widest step, for scales of some 4 deviations.
  const double step = format.name.starts_with("nf4") ? 0.6 : 0.35;
  EXPECT_LE(apart, format.bytes >= 4 && format.numbers == 1 ? 0.0 : step) << format.name;
  // What comes back is what its blocks say: to write it again changes little or nothing.
  const at::Tensor twice = quantized(format, again);
  EXPECT_LE((dequantized(format, twice.const_data_ptr(), numbers.sizes()) - again)
                .abs()
                .max()
                .item<double>(),
            1e-3)
      << format.name;
}

TEST_P(EveryFormat, FillsAParameter) {
  const Format& format = *GetParam();
  const at::Tensor blocks = at::zeros({40, 300 * format.bytes}, at::kByte);
  at::Tensor parameter = at::ones({40, 300 * format.numbers});
  const auto version = parameter._version();
  EXPECT_TRUE(fill(parameter, format, blocks));
  EXPECT_TRUE(parameter.eq(0).all().item<bool>());
  EXPECT_GT(parameter._version(), version);
  blocks.fill_(0xff);  // NaN, whatever the scale's place
  EXPECT_FALSE(fill(parameter, format, blocks));
  EXPECT_TRUE(parameter.isnan().all().item<bool>());
  EXPECT_THROW(fill(parameter, format, blocks.narrow(0, 0, 39)), core::DataError);
  EXPECT_THROW(fill(parameter.t(), format, blocks), core::DataError);
}

INSTANTIATE_TEST_SUITE_P(All, EveryFormat, testing::ValuesIn(formats()),
                         [](const auto& each) { return each.param->name; });

TEST(Formats, UnknownOnesAreNamed) {
  EXPECT_EQ(format_of_gguf_type(77), nullptr);
  EXPECT_THROW(format_named("q9"), core::ConfigError);
}

// Levels, scales and offsets by hand: one block each with a scale of 2 and a least number of 0.5.
constexpr std::uint16_t kTwo = 0x4000, kHalf = 0x3800;

std::vector<float> read(const Format& format, const std::vector<std::uint8_t>& block) {
  std::vector<float> numbers(static_cast<std::size_t>(format.numbers));
  format.dequantize(block.data(), 1, numbers.data());
  return numbers;
}

TEST(Formats, FourBitsByHand) {
  std::vector<std::uint8_t> block(20, 0);
  store_u16(block.data(), kTwo);
  store_u16(block.data() + 2, kHalf);
  block[4] = 0x3F;  // number 0: 15, number 16: 3
  const auto numbers = read(kQ4_1, block);
  EXPECT_EQ(numbers[0], 30.5f);
  EXPECT_EQ(numbers[16], 6.5f);
  EXPECT_EQ(numbers[1], 0.5f);
}

TEST(Formats, FiveBitsByHand) {
  std::vector<std::uint8_t> block(24, 0);
  store_u16(block.data(), kTwo);
  store_u16(block.data() + 2, kHalf);
  block[4] = 1;      // the fifth bit of number 0
  block[7] = 0x80;   // and of number 31
  block[8] = 0x01;   // number 0: 1 + 16
  block[23] = 0x20;  // number 31: 2 + 16
  const auto numbers = read(kQ5_1, block);
  EXPECT_EQ(numbers[0], 34.5f);
  EXPECT_EQ(numbers[31], 36.5f);
  block.erase(block.begin() + 2, block.begin() + 4);
  EXPECT_EQ(read(kQ5_0, block)[0], 2.0f);
  EXPECT_EQ(read(kQ5_0, block)[1], -32.0f);
}

TEST(Formats, SuperBlocksByHand) {
  std::vector<std::uint8_t> block(144, 0);
  store_u16(block.data(), kTwo);
  store_u16(block.data() + 2, kHalf);
  block[4] = 3;           // scale of group 0
  block[8] = 5;           // least number of group 0
  block[4 + 3] |= 0x80;   // two high bits of the scale of group 7: 2
  block[4 + 11] |= 0x01;  // its low bits
  block[16] = 0x0A;       // number 0
  block[16 + 96] = 0x70;  // number 224
  const auto numbers = read(kQ4K, block);
  EXPECT_EQ(numbers[0], 2.0f * 3 * 10 - 0.5f * 5);
  EXPECT_EQ(numbers[1], -0.5f * 5);
  EXPECT_EQ(numbers[224], 2.0f * 33 * 7);
}

}  // namespace
}  // namespace omnima::quant

// Products with stored weights: what gemv makes of the same weights in float32, bit for bit, in
// every format and at every level of this machine.
#include "omnima/kernels/cpu/block_gemv.h"

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "../kernels/cpu/levels.h"
#include "omnima/kernels/cpu/gemv.h"
#include "omnima/quant/format.h"

namespace omnima::quant {
namespace {

using kernels::draw;
using kernels::Level;

// Blocks of any bits, but that no 16 of them stand for NaN or infinity.
std::vector<std::uint8_t> any_blocks(const Format& format, std::int64_t count, unsigned seed) {
  std::mt19937 engine(seed);
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(count * format.bytes));
  for (auto& byte : bytes) byte = static_cast<std::uint8_t>(engine() & 0xbb);
  return bytes;
}

std::vector<float> numbers_of(const Format& format, const std::vector<std::uint8_t>& blocks) {
  const auto count = static_cast<std::int64_t>(blocks.size()) / format.bytes;
  std::vector<float> numbers(static_cast<std::size_t>(count * format.numbers));
  format.dequantize(blocks.data(), count, numbers.data());
  return numbers;
}

class StoredProducts : public testing::TestWithParam<const Format*> {
 protected:
  const Format& format_ = *GetParam();
  // Whole blocks; single numbers end within a vector.
  std::vector<std::int64_t> widths() const {
    if (format_.numbers == 1) return {1, 7, 16, 37, 640};
    return {format_.numbers, 3 * format_.numbers, 2048 / format_.numbers * format_.numbers};
  }
};

TEST_P(StoredProducts, AreThoseOfTheSameWeightsInFloat32) {
  for (const std::int64_t inputs : widths()) {
    for (const std::int64_t rows : {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 21}) {
      const std::int64_t outputs = 13, stride = inputs + 3;
      const auto blocks = any_blocks(format_, outputs * inputs / format_.numbers, 1);
      const auto weight = numbers_of(format_, blocks);
      const auto x = draw(static_cast<std::size_t>(rows * stride), 2), bias = draw(outputs, 3);
      for (const Level level : kernels::levels()) {
        SCOPED_TRACE(testing::Message()
                     << kernels::level_name(level) << ' ' << inputs << ' ' << rows << " rows");
        kernels::Guarded<float> y(rows * outputs), wanted(rows * outputs);
        const kernels::BlockGemv product{format_.blocks(), blocks.data(), bias.data(), inputs,
                                         x.data(),         stride,        rows,        y.data(),
                                         outputs};
        // In two ranges: neither depends on the other.
        kernels::block_gemv(product, 0, 6, level);
        kernels::block_gemv(product, 6, outputs, level);
        kernels::gemv_variants().at(level)({weight.data(), inputs, bias.data(), inputs, x.data(),
                                            stride, rows, wanted.data(), outputs},
                                           0, outputs);
        for (std::int64_t i = 0; i < rows * outputs; ++i) ASSERT_EQ(y[i], wanted[i]) << i;
      }
    }
  }
}

TEST_P(StoredProducts, AreTheSumsInDoublePrecision) {
  const std::int64_t inputs = 2048 / format_.numbers * format_.numbers, outputs = 5;
  const auto blocks = any_blocks(format_, outputs * inputs / format_.numbers, 4);
  const auto weight = numbers_of(format_, blocks);
  const auto x = draw(inputs, 5);
  for (const Level level : kernels::levels()) {
    std::vector<float> y(outputs);
    kernels::block_gemv(
        {format_.blocks(), blocks.data(), nullptr, inputs, x.data(), inputs, 1, y.data(), outputs},
        0, outputs, level);
    for (std::int64_t o = 0; o < outputs; ++o) {
      double sum = 0, size = 0;
      for (std::int64_t i = 0; i < inputs; ++i) {
        sum += double{weight[o * inputs + i]} * x[i];
        size += std::abs(double{weight[o * inputs + i]} * x[i]);
      }
      EXPECT_NEAR(y[o], sum, 1e-6 * size) << kernels::level_name(level);
    }
  }
}

TEST_P(StoredProducts, WeightsAreWhatTheFormatSays) {
  for (const std::int64_t count : {1, 2, 5, 16, 33}) {
    const auto blocks = any_blocks(format_, count, 6);
    const auto wanted = numbers_of(format_, blocks);
    for (const Level level : kernels::levels()) {
      kernels::Guarded<float> numbers(static_cast<std::int64_t>(wanted.size()));
      kernels::dequantize_blocks(format_.blocks(), blocks.data(), count, numbers.data(), level);
      for (std::size_t i = 0; i < wanted.size(); ++i) {
        ASSERT_EQ(numbers[static_cast<std::int64_t>(i)], wanted[i])
            << kernels::level_name(level) << ' ' << i;
      }
    }
  }
}

// What 16 bits of a number are, by the nearest even: c10 has a rounding of its own.
TEST_P(StoredProducts, WeightsAreRoundedToBfloat16) {
  for (const std::int64_t count : {1, 2, 5, 16, 33}) {
    const auto blocks = any_blocks(format_, count, 7);
    const auto wanted = numbers_of(format_, blocks);
    for (const Level level : kernels::levels()) {
      kernels::Guarded<kernels::bfloat16> numbers(static_cast<std::int64_t>(wanted.size()));
      kernels::dequantize_blocks(format_.blocks(), blocks.data(), count, numbers.data(), level);
      for (std::size_t i = 0; i < wanted.size(); ++i) {
        ASSERT_EQ(numbers[static_cast<std::int64_t>(i)], float{c10::BFloat16(wanted[i])})
            << kernels::level_name(level) << ' ' << i;
      }
    }
  }
}

// Halves with infinities, a NaN, a tie and a number below the normal ones.
TEST(StoredHalves, AreRoundedAtEveryLevel) {
  std::vector<std::uint16_t> halves{0x7c00, 0xfc00, 0x7e01, 0x3c04, 0x3c0c, 0x0001, 0x8000, 0x7bff};
  halves.resize(21, 0x34cd);
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(halves.data());
  const auto count = static_cast<std::int64_t>(halves.size());
  for (const Level level : kernels::levels()) {
    kernels::Guarded<kernels::bfloat16> rounded(count);
    kernels::dequantize_blocks(format_named("f16").blocks(), bytes, count, rounded.data(), level);
    for (std::int64_t i = 0; i < count; ++i) {
      const float number = c10::Half(halves[i], c10::Half::from_bits());
      if (std::isnan(number)) {
        EXPECT_EQ(rounded.data()[i].bits & 0x7fc0, 0x7fc0) << kernels::level_name(level);
      } else {
        EXPECT_EQ(rounded.data()[i].bits, c10::BFloat16(number).x)
            << kernels::level_name(level) << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, StoredProducts, testing::ValuesIn(formats()),
                         [](const auto& tested) { return std::string(tested.param->name); });

}  // namespace
}  // namespace omnima::quant

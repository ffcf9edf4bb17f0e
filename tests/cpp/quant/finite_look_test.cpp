// A look finds NaN and infinity wherever the numbers of a format have them, and nowhere else.
#include "omnima/quant/finite_look.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "omnima/quant/convert.h"
#include "omnima/quant/formats/bits.h"

namespace omnima::quant {
namespace {

std::vector<std::size_t> found(std::vector<Matrix> matrices) {
  return FiniteLook(std::move(matrices)).found();
}

TEST(FiniteLooks, FindOneSpecialNumber) {
  for (const auto type : {at::kFloat, at::kHalf, at::kBFloat16}) {
    const at::Tensor numbers = at::randn({300, 401}).to(type);
    EXPECT_TRUE(found({matrix_of(numbers)}).empty());
    numbers[299][400] = -INFINITY;
    const Matrix fine = matrix_of(at::randn({2, 3})), damaged = matrix_of(numbers);
    EXPECT_EQ(found({fine, damaged, fine, damaged}), (std::vector<std::size_t>{1, 3}));
    numbers[299][400] = NAN;
    EXPECT_EQ(found({fine, matrix_of(numbers)}), (std::vector<std::size_t>{1}));
  }
}

// Bytes of any kind: the answer is that of the numbers themselves.
TEST(FiniteLooks, AgreeWithTheNumbersOfRandomBytes) {
  std::mt19937 random(1);
  for (const Format* format : formats()) {
    int damaged = 0;
    for (int round = 0; round < 400; ++round) {
      const at::Tensor bytes = at::empty({2, 3 * format->bytes}, at::kByte);
      auto* data = bytes.mutable_data_ptr<std::uint8_t>();
      for (std::int64_t i = 0; i < bytes.numel(); ++i) {
        data[i] = static_cast<std::uint8_t>(random());
        if (round % 2 == 0) data[i] &= 0x3f;  // so that most of them are finite
      }
      const Matrix matrix = matrix_of(*format, bytes, 2, 3 * format->numbers);
      const at::Tensor numbers = dequantized_rows(matrix, 0, 2);
      const bool finite = all_finite(numbers.const_data_ptr<float>(), numbers.numel());
      EXPECT_EQ(found({matrix}).empty(), finite) << format->name;
      damaged += finite ? 0 : 1;
    }
    EXPECT_GT(damaged, 0) << format->name;
    EXPECT_LT(damaged, 400) << format->name;
  }
}

// Many blocks are looked at together: each of them counts, the last ones as well.
TEST(FiniteLooks, SeeEveryHalfOfEveryBlock) {
  for (const Format* format : formats()) {
    const std::int64_t blocks = 70;
    const at::Tensor bytes = at::zeros({1, blocks * format->bytes}, at::kByte);
    const Matrix matrix = matrix_of(*format, bytes, 1, blocks * format->numbers);
    EXPECT_TRUE(found({matrix}).empty()) << format->name;
    const int lowest = format->exponent & -format->exponent;
    for (std::int64_t i = 0; i < blocks; ++i) {
      for (const std::int64_t half : format->halves) {
        auto* at = bytes.mutable_data_ptr<std::uint8_t>() + i * format->bytes + half;
        store_u16(at, 0x8000 | format->exponent);
        ASSERT_FALSE(found({matrix}).empty()) << format->name << ' ' << i << ' ' << half;
        store_u16(at, static_cast<std::uint16_t>(~lowest));
        ASSERT_TRUE(found({matrix}).empty()) << format->name << ' ' << i << ' ' << half;
        store_u16(at, 0);
      }
    }
  }
}

TEST(FiniteLooks, MayBeLeftBeforeTheirEnd) {
  const FiniteLook look({matrix_of(at::randn({2000, 500}))});
}

}  // namespace
}  // namespace omnima::quant

#include "omnima/kernels/cpu/gemv.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace omnima::kernels {
namespace {

std::vector<float> random_floats(std::size_t count, unsigned seed) {
  std::mt19937 bits(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (auto& value : values) value = normal(bits);
  return values;
}

struct Case {
  std::int64_t outputs, inputs, rows;
  bool bias;
};

class GemvTest : public testing::TestWithParam<Case> {};

TEST_P(GemvTest, EveryLevelEqualsTheSumInDoublePrecision) {
  const auto [outputs, inputs, rows, with_bias] = GetParam();
  const auto stride = inputs + 3;
  const auto weight = random_floats(outputs * stride, 1), x = random_floats(rows * stride, 2),
             bias = random_floats(outputs, 3);
  for (const Level level : gemv_variants().levels(detected_level())) {
    std::vector<float> y(rows * (outputs + 1), NAN);
    gemv_variants().at(level)({weight.data(), stride, with_bias ? bias.data() : nullptr, inputs,
                               x.data(), stride, rows, y.data(), outputs + 1},
                              0, outputs);
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t o = 0; o < outputs; ++o) {
        double sum = with_bias ? bias[o] : 0.0;
        for (std::int64_t k = 0; k < inputs; ++k) {
          sum += double{weight[o * stride + k]} * x[r * stride + k];
        }
        EXPECT_NEAR(y[r * (outputs + 1) + o], sum, 1e-5 * (inputs + 10))
            << level_name(level) << " row " << r << " output " << o;
      }
      EXPECT_TRUE(std::isnan(y[r * (outputs + 1) + outputs])) << "wrote beyond its outputs";
    }
  }
}

TEST_P(GemvTest, ARowsNumbersDependNeitherOnOtherRowsNorOnTheRange) {
  const auto [outputs, inputs, rows, with_bias] = GetParam();
  const auto weight = random_floats(outputs * inputs, 4), x = random_floats(rows * inputs, 5);
  for (const Level level : gemv_variants().levels(detected_level())) {
    const auto function = gemv_variants().at(level);
    std::vector<float> together(rows * outputs), alone(outputs);
    function(
        {weight.data(), inputs, nullptr, inputs, x.data(), inputs, rows, together.data(), outputs},
        0, outputs);
    for (std::int64_t r = 0; r < rows; ++r) {
      const Gemv single{weight.data(), inputs, nullptr,      inputs, x.data() + r * inputs,
                        inputs,        1,      alone.data(), outputs};
      for (std::int64_t o = 0; o < outputs; ++o) function(single, o, o + 1);
      for (std::int64_t o = 0; o < outputs; ++o) {
        EXPECT_EQ(together[r * outputs + o], alone[o]) << level_name(level);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, GemvTest,
                         testing::Values(Case{1, 1, 1, false}, Case{4, 16, 1, true},
                                         Case{7, 33, 2, true}, Case{13, 64, 3, false},
                                         Case{18, 5, 4, true}, Case{37, 100, 11, true}));

TEST(Gemv, TheActiveVariantComputes) {
  const float weight[] = {1, 2, 3, 4}, x[] = {5, 6};
  float y[2] = {};
  gemv({weight, 2, nullptr, 2, x, 2, 1, y, 2}, 0, 2);
  EXPECT_EQ(y[0], 17);
  EXPECT_EQ(y[1], 39);
}

}  // namespace
}  // namespace omnima::kernels

#include "omnima/kernels/cpu/gemv.h"

#include <gtest/gtest.h>

#include "levels.h"

namespace omnima::kernels {
namespace {

struct Case {
  std::int64_t outputs, inputs, rows;
  bool bias;
};

class GemvTest : public testing::TestWithParam<Case> {};

TEST_P(GemvTest, EveryLevelEqualsTheSumInDoublePrecision) {
  const auto [outputs, inputs, rows, with_bias] = GetParam();
  const auto stride = inputs + 3;
  const auto weight = draw(outputs * stride, 1), x = draw(rows * stride, 2),
             bias = draw(outputs, 3);
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
  const auto weight = draw(outputs * inputs, 4), x = draw(rows * inputs, 5);
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
                                         Case{18, 5, 4, true}, Case{37, 100, 11, true},
                                         Case{0, 16, 3, true}, Case{5, 16, 0, true},
                                         Case{6, 0, 3, true}, Case{3, 2053, 5, false},
                                         Case{2, 100003, 1, true}));

TEST(Gemv, WritesItsRangeAloneWhereverTheMemoryStands) {
  for (const Level level : gemv_variants().levels(detected_level())) {
    for (const std::int64_t inputs : odd_sizes()) {
      SCOPED_TRACE(testing::Message() << level_name(level) << " " << inputs);
      const std::int64_t offset = inputs % 11;
      Guarded<float> weight(draw(9 * inputs, 1), offset), x(draw(2 * inputs, 2), offset),
          y(std::vector<float>(18, 5.0f), offset);
      const Gemv product{weight.data(), inputs, nullptr, inputs, x.data(), inputs, 2, y.data(), 9};
      gemv_variants().at(level)(product, 2, 7);
      for (std::int64_t i = 0; i < 18; ++i) {
        EXPECT_EQ(y[i] == 5.0f, i % 9 < 2 || i % 9 >= 7) << i;
      }
    }
  }
}

TEST(Gemv, WhatIsNotFiniteReachesEveryOutputOfItsRowAndNoOther) {
  for (const Level level : gemv_variants().levels(detected_level())) {
    for (const float bad : {kNan, kInf}) {
      for (const std::size_t place : {0u, 16u, 36u}) {
        const auto weight = draw(5 * 37, 1);
        auto x = draw(3 * 37, 2);
        x[37 + place] = bad;
        std::vector<float> y(15);
        gemv_variants().at(level)({weight.data(), 37, nullptr, 37, x.data(), 37, 3, y.data(), 5}, 0,
                                  5);
        for (std::size_t i = 0; i < 15; ++i) {
          EXPECT_EQ(std::isfinite(y[i]), i / 5 != 1) << level_name(level) << " " << i;
        }
      }
    }
  }
}

TEST(Gemv, TheActiveVariantComputes) {
  const float weight[] = {1, 2, 3, 4}, x[] = {5, 6};
  float y[2] = {};
  gemv({weight, 2, nullptr, 2, x, 2, 1, y, 2}, 0, 2);
  EXPECT_EQ(y[0], 17);
  EXPECT_EQ(y[1], 39);
}

}  // namespace
}  // namespace omnima::kernels

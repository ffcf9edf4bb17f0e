// Every instruction-set level of the logit kernels against plain double arithmetic.
#include "omnima/kernels/cpu/logits.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace omnima::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<Level> levels() {
  std::vector<Level> all;
  for (const Level level : {Level::kGeneric, Level::kAvx2, Level::kAvx512}) {
    if (level <= detected_level()) all.push_back(level);
  }
  return all;
}

class LogitKernelsTest : public testing::TestWithParam<std::int64_t> {
 protected:
  std::int64_t count() const { return GetParam(); }
  std::vector<float> logits() const {
    std::mt19937 bits(static_cast<unsigned>(count()));
    std::normal_distribution<float> normal(0.0f, 10.0f);
    std::vector<float> values(static_cast<std::size_t>(count()));
    for (float& value : values) value = normal(bits);
    return values;
  }
};

TEST_P(LogitKernelsTest, TheLargestIsFoundWhereverItStands) {
  for (const Level level : levels()) {
    auto row = logits();
    const auto& kernels = logit_kernels(level);
    EXPECT_EQ(kernels.largest(row.data(), count()), *std::max_element(row.begin(), row.end()));
    for (float& logit : row) {
      const float before = logit;
      logit = 1000;
      ASSERT_EQ(kernels.largest(row.data(), count()), 1000) << level_name(level);
      logit = before;
    }
  }
}

TEST_P(LogitKernelsTest, OneBadLogitIsSeenWhereverItStands) {
  for (const Level level : levels()) {
    auto row = logits();
    const auto& kernels = logit_kernels(level);
    EXPECT_TRUE(kernels.all_finite(row.data(), count()));
    for (const float bad : {kInfinity, -kInfinity, std::nanf("")}) {
      for (float& logit : row) {
        const float before = logit;
        logit = bad;
        ASSERT_FALSE(kernels.all_finite(row.data(), count())) << level_name(level);
        logit = before;
      }
    }
  }
}

TEST_P(LogitKernelsTest, WeightsAreExponentialsOfTheGapAndTheirSum) {
  for (const Level level : levels()) {
    auto row = logits();
    if (count() > 2) row[1] = -kInfinity;
    const float most = *std::max_element(row.begin(), row.end());
    std::vector<float> weights(row.size());
    const double total =
        logit_kernels(level).softmax_weights(row.data(), most, weights.data(), count());
    double sum = 0;
    for (std::size_t i = 0; i < row.size(); ++i) {
      const double expected = std::exp(double{row[i] - most});  // the gap is rounded, too
      EXPECT_NEAR(weights[i], expected, 4e-7 * expected + 2e-38) << level_name(level);
      sum += weights[i];
    }
    if (count() > 2) {
      EXPECT_EQ(weights[1], 0.0f);
    }
    EXPECT_NEAR(total, sum, 1e-12 * sum);
  }
}

INSTANTIATE_TEST_SUITE_P(Counts, LogitKernelsTest, testing::Values(1, 3, 16, 37, 512));

}  // namespace
}  // namespace omnima::kernels

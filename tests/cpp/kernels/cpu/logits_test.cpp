// Every instruction-set level of the logit kernels against plain double arithmetic.
#include "omnima/kernels/cpu/logits.h"

#include <gtest/gtest.h>

#include "levels.h"

namespace omnima::kernels {
namespace {

class LogitKernelsTest : public testing::TestWithParam<std::int64_t> {
 protected:
  std::int64_t count() const { return GetParam(); }
  std::vector<float> logits() const {
    return draw(static_cast<std::size_t>(count()), static_cast<unsigned>(count()), 10.0f);
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
    for (const float bad : {kInf, -kInf, kNan}) {
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
    if (count() > 2) row[1] = -kInf;
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

INSTANTIATE_TEST_SUITE_P(Counts, LogitKernelsTest, testing::Values(1, 2, 3, 16, 37, 512, 1009));

TEST(LogitKernels, NothingIsFiniteAndWeighsNothing) {
  for (const Level level : levels()) {
    Guarded<float> none(0);
    EXPECT_TRUE(logit_kernels(level).all_finite(none.data(), 0));
    EXPECT_EQ(logit_kernels(level).softmax_weights(none.data(), 0, none.data(), 0), 0.0);
  }
}

TEST(LogitKernels, AHugeRowInItsOwnPlace) {
  constexpr std::int64_t kCount = (1 << 18) + 3;
  const auto row = draw(kCount, 1, 5.0f);
  for (const Level level : levels()) {
    SCOPED_TRACE(level_name(level));
    Guarded<float> memory(row, 3);
    const auto& kernels = logit_kernels(level);
    const float most = kernels.largest(memory.data(), kCount);
    EXPECT_EQ(most, *std::max_element(row.begin(), row.end()));
    const double total = kernels.softmax_weights(memory.data(), most, memory.data(), kCount);
    double sum = 0;
    for (std::int64_t i = 0; i < kCount; ++i) {
      const double expected = std::exp(double{row[i] - most});
      ASSERT_NEAR(memory[i], expected, 4e-7 * expected + 2e-38) << i;
      sum += expected;
    }
    EXPECT_NEAR(total, sum, 1e-6 * sum);
  }
}

}  // namespace
}  // namespace omnima::kernels

// Cross-entropy at every level, in both number formats, against plain arithmetic in double.
#include <gtest/gtest.h>

#include "levels.h"
#include "omnima/kernels/cpu/cross_entropy.h"

namespace omnima::kernels {
namespace {

template <class T>
class CrossEntropyLevels : public testing::Test {
 protected:
  void check(const std::vector<T>& logits, std::int64_t label, float scale, std::int64_t offset) {
    const auto vocab = static_cast<std::int64_t>(logits.size());
    double most = -kInf, sum = 0;
    for (const T v : logits) most = std::max<double>(most, widened(v));
    for (const T v : logits) sum += std::exp(widened(v) - most);
    const double expected = std::log(sum) + most - widened(logits[label]);
    for (const Level level : levels()) {
      SCOPED_TRACE(testing::Message() << level_name(level) << " " << label << " of " << vocab);
      const auto& kernels = cross_entropy_kernels<T>(level);
      Guarded<T> work(logits, offset);
      Guarded<float> scratch(vocab, offset);
      // A float's sum of many terms is off by some of its last digits.
      const double near = 2e-6 * (2 + std::abs(expected) + std::abs(most)) + 6e-10 * double(vocab);
      EXPECT_NEAR(kernels.loss(work.data(), vocab, label), expected, near);
      EXPECT_NEAR(kernels.loss_and_gradient(work.data(), vocab, label, {scale}, scratch.data()),
                  expected, near);
      for (std::int64_t i = 0; i < vocab; ++i) {
        const double slope = scale * (std::exp(widened(logits[i]) - most) / sum - (i == label));
        ASSERT_NEAR(work[i], slope, allowed<T>(slope, scale * 0.25)) << i;
      }
    }
  }
};

using Formats = testing::Types<float, bfloat16>;
TYPED_TEST_SUITE(CrossEntropyLevels, Formats);

TYPED_TEST(CrossEntropyLevels, OddVocabulariesEqualPlainArithmetic) {
  for (const std::int64_t vocab : odd_sizes()) {
    const auto logits = draw<TypeParam>(vocab, 1, 4.0f);
    for (const std::int64_t label : {std::int64_t{0}, vocab / 2, vocab - 1}) {
      this->check(logits, label, 0.5f, vocab % 3);
    }
  }
  this->check(draw<TypeParam>(50257, 2, 2.0f), 50256, 1.0f, 1);
  this->check(draw<TypeParam>((1 << 18) + 3, 3, 2.0f), 12345, 1e-3f, 0);
}

TYPED_TEST(CrossEntropyLevels, SmoothedTargetsAndZLossEqualPlainArithmetic) {
  for (const std::int64_t vocab : odd_sizes()) {
    const auto logits = draw<TypeParam>(vocab, 9, 2.0f);
    const std::int64_t label = vocab / 3;
    double sum = 0, all = 0;
    for (const auto v : logits) sum += std::exp(widened(v)), all += widened(v);
    const double log_sum = std::log(sum);
    for (const auto& [smoothing, z] : {std::pair{0.1f, 0.0f}, {0.0f, 0.01f}, {0.3f, 0.2f}}) {
      const CrossEntropyRule rule{0.5f, smoothing, z};
      const double expected = log_sum - (1 - smoothing) * widened(logits[label]) -
                              smoothing * all / double(vocab) + z * log_sum * log_sum;
      for (const Level level : levels()) {
        SCOPED_TRACE(testing::Message() << level_name(level) << " " << vocab);
        Guarded<TypeParam> work(logits, vocab % 3);
        Guarded<float> scratch(vocab, 1);
        const float loss = cross_entropy_kernels<TypeParam>(level).loss_and_gradient(
            work.data(), vocab, label, rule, scratch.data());
        EXPECT_NEAR(loss, expected, 1e-5 * (1 + std::abs(expected)));
        for (std::int64_t i = 0; i < vocab; ++i) {
          const double p = std::exp(widened(logits[i]) - log_sum);
          const double slope = 0.5 * (p * (1 + 2 * z * log_sum) - smoothing / double(vocab) -
                                      (i == label ? 1 - smoothing : 0));
          ASSERT_NEAR(work[i], slope, allowed<TypeParam>(slope, 0.25)) << i;
        }
      }
    }
  }
}

TYPED_TEST(CrossEntropyLevels, LogitsFarApartAndFarFromZero) {
  for (const float far : {90.0f, 1000.0f, 30000.0f}) {
    auto logits = draw<TypeParam>(41, 4);
    logits[7] = as<TypeParam>(far);
    logits[30] = as<TypeParam>(-far);
    for (const std::int64_t label : {7, 30, 40}) this->check(logits, label, 1.0f, 0);
    this->check(std::vector<TypeParam>(41, as<TypeParam>(far)), 3, 1.0f, 0);
    this->check(std::vector<TypeParam>(41, as<TypeParam>(-far)), 3, 1.0f, 0);
  }
}

TYPED_TEST(CrossEntropyLevels, AMaskedLogitTakesNoPart) {
  auto logits = draw<TypeParam>(19, 5);
  logits[3] = logits[18] = as<TypeParam>(-kInf);
  this->check(logits, 4, 1.0f, 0);
}

TYPED_TEST(CrossEntropyLevels, WhatIsNotFiniteIsNotHidden) {
  for (const Level level : levels()) {
    const auto& kernels = cross_entropy_kernels<TypeParam>(level);
    const auto losses = [&](const std::vector<TypeParam>& logits, std::int64_t label) {
      auto work = logits;
      std::vector<float> scratch(logits.size());
      const auto vocab = static_cast<std::int64_t>(logits.size());
      const float alone = kernels.loss(work.data(), vocab, label);
      return std::array{
          alone, kernels.loss_and_gradient(work.data(), vocab, label, {1.0f}, scratch.data())};
    };
    for (const std::int64_t place : {0, 16, 36}) {
      SCOPED_TRACE(testing::Message() << level_name(level) << " at " << place);
      for (const float bad : {kNan, kInf}) {
        auto logits = draw<TypeParam>(37, 6);
        logits[place] = as<TypeParam>(bad);
        for (const std::int64_t label : {place, std::int64_t{5}}) {
          const auto [alone, both] = losses(logits, label);
          EXPECT_FALSE(std::isfinite(alone));
          EXPECT_FALSE(std::isfinite(both));
        }
      }
      auto logits = draw<TypeParam>(37, 7);
      logits[place] = as<TypeParam>(-kInf);
      EXPECT_EQ(losses(logits, place)[0], kInf);  // the target itself is impossible
      EXPECT_EQ(losses(logits, place)[1], kInf);
    }
    const std::vector<TypeParam> impossible(11, as<TypeParam>(-kInf));
    EXPECT_TRUE(std::isnan(losses(impossible, 2)[0]));
    EXPECT_TRUE(std::isnan(losses(impossible, 2)[1]));
  }
}

}  // namespace
}  // namespace omnima::kernels

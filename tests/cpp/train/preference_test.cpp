#include "omnima/train/preference.h"

#include <gtest/gtest.h>

#include <cmath>

namespace omnima::train {
namespace {

// The slopes of every loss against differences of its values.
TEST(Preference, SlopesAreThoseOfTheValues) {
  constexpr double kStep = 1e-5;
  for (const char* name : {"dpo", "ipo", "simpo", "orpo"}) {
    const PreferenceOptions options{name, 0.7, 0.3};
    for (const double chosen_loss : {0.5, 4.0, 30.0}) {
      for (const double rejected_loss : {0.6, 9.0, 80.0}) {
        const Answer chosen{chosen_loss, 5.0, 7}, rejected{rejected_loss, 6.0, 11};
        const auto value = [&](double by_chosen, double by_rejected) {
          return pair_loss(options, {chosen.loss + by_chosen, chosen.reference, chosen.tokens},
                           {rejected.loss + by_rejected, rejected.reference, rejected.tokens})
              .value;
        };
        const PairLoss found = pair_loss(options, chosen, rejected);
        const double by_chosen = (value(kStep, 0) - value(-kStep, 0)) / (2 * kStep);
        const double by_rejected = (value(0, kStep) - value(0, -kStep)) / (2 * kStep);
        EXPECT_NEAR(found.by_chosen, by_chosen, 1e-6 * (1 + std::abs(by_chosen))) << name;
        EXPECT_NEAR(found.by_rejected, by_rejected, 1e-6 * (1 + std::abs(by_rejected))) << name;
        EXPECT_TRUE(std::isfinite(found.value) && std::isfinite(found.reward_margin)) << name;
      }
    }
  }
}

TEST(Preference, ExtremeAnswersGiveFiniteNumbers) {
  for (const char* name : {"dpo", "ipo", "simpo", "orpo"}) {
    const PreferenceOptions options{name, 1.0, 0.5};
    for (const double loss : {0.0, 1e-9, 1e5}) {
      const PairLoss found = pair_loss(options, {loss, 0, 3}, {1e5 - loss, 0, 3});
      EXPECT_TRUE(std::isfinite(found.value)) << name << loss;
      EXPECT_TRUE(std::isfinite(found.by_chosen) && std::isfinite(found.by_rejected)) << name;
    }
  }
}

TEST(Preference, RowsWithoutLabelsAreNoPairs) {
  data::Batch batch;
  batch.rows = 4;
  batch.time = 2;
  batch.labels = {-100, 5, -100, 6, -100, -100, -100, -100};
  EXPECT_EQ(pairs_of(batch), 1);
}

}  // namespace
}  // namespace omnima::train

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
        const Answer chosen{chosen_loss, 5.0, 7, 0.2}, rejected{rejected_loss, 6.0, 11};
        const auto value = [&](double by_chosen, double by_rejected) {
          Answer mine = chosen, other = rejected;
          mine.loss += by_chosen;
          other.loss += by_rejected;
          return pair_loss(options, mine, other).value;
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

TEST(Preference, RewardsHaveTheSlopesOfTheirValues) {
  constexpr double kStep = 1e-5;
  PreferenceOptions options{"reward"};
  for (const double center : {0.0, 0.3}) {
    options.center_rewards = center;
    for (const double delta : {-40.0, -0.5, 0.0, 2.0, 40.0}) {
      const auto value = [&](double by_chosen, double by_rejected) {
        return pair_loss(options, {1.5 + delta + by_chosen}, {1.5 + by_rejected}).value;
      };
      const PairLoss found = pair_loss(options, {1.5 + delta}, {1.5});
      EXPECT_NEAR(found.by_chosen, (value(kStep, 0) - value(-kStep, 0)) / (2 * kStep), 1e-6);
      EXPECT_NEAR(found.by_rejected, (value(0, kStep) - value(0, -kStep)) / (2 * kStep), 1e-6);
      EXPECT_EQ(found.reward_margin, delta);
    }
  }
}

TEST(Preference, JudgedAnswersHaveTheSlopesOfTheirValues) {
  constexpr double kStep = 1e-5;
  const PreferenceOptions options{"kto", 0.7, 0.3, 1.25, 0.5};
  for (const bool good : {true, false}) {
    for (const double loss : {0.5, 4.0, 9.0, 30.0}) {
      const auto value = [&](double by) {
        return judged_loss(options, {loss + by, 5.0, 7}, good, 0.75).value;
      };
      const JudgedLoss found = judged_loss(options, {loss, 5.0, 7}, good, 0.75);
      EXPECT_NEAR(found.by_answer, (value(kStep) - value(-kStep)) / (2 * kStep), 1e-8);
      EXPECT_EQ(found.by_answer > 0, good);  // a good answer is to become likelier
      EXPECT_EQ(found.right, good == (5.0 - loss > 0.75));
    }
  }
  for (const double loss : {0.0, 1e6}) {
    EXPECT_TRUE(std::isfinite(judged_loss(options, {loss, 3e5, 7}, true, 0).by_answer));
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

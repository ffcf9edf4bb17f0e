#include "omnima/optim/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

#include "omnima/core/error.h"

namespace omnima::optim {
namespace {

TEST(Schedule, WarmsUpLinearly) {
  const Schedule schedule{"constant", 1.0, 0.1, 4};
  EXPECT_DOUBLE_EQ(schedule.at(0, 0), 0.25);
  EXPECT_DOUBLE_EQ(schedule.at(3, 0), 1.0);
  EXPECT_DOUBLE_EQ(schedule.at(100, 1), 1.0);
}

TEST(Schedule, LinearAndCosineEndAtTheirRatio) {
  for (const char* name : {"linear", "cosine"}) {
    const Schedule schedule{name, 2.0, 0.1, 0};
    EXPECT_DOUBLE_EQ(schedule.at(0, 0), 2.0) << name;
    EXPECT_NEAR(schedule.at(9, 0.5), 1.1, 1e-12) << name;
    EXPECT_NEAR(schedule.at(9, 1), 0.2, 1e-12) << name;
    EXPECT_NEAR(schedule.at(9, 7), 0.2, 1e-12) << name;
  }
}

Schedule named(const char* name, double min_lr_ratio = 0.1) {
  Schedule schedule;
  schedule.name = name;
  schedule.lr = 2.0;
  schedule.min_lr_ratio = min_lr_ratio;
  return schedule;
}

// Loshchilov and Hutter 2017, equation 5, with each cycle twice as long as the one before.
TEST(Schedule, CosineStartsAgain) {
  Schedule schedule = named("cosine_restarts");
  schedule.cycles = 3;
  schedule.cycle_growth = 2.0;  // ends at 1/7, 3/7 and 7/7 of the run
  EXPECT_DOUBLE_EQ(schedule.at(0, 0), 2.0);
  EXPECT_NEAR(schedule.at(0, 0.5 / 7), 1.1, 1e-12);
  EXPECT_NEAR(schedule.at(0, 1.0 / 7 - 1e-9), 0.2, 1e-6);
  EXPECT_NEAR(schedule.at(0, 1.0 / 7 + 1e-9), 2.0, 1e-6);
  EXPECT_NEAR(schedule.at(0, 2.0 / 7), 1.1, 1e-12);
  EXPECT_NEAR(schedule.at(0, 5.0 / 7), 1.1, 1e-12);
  EXPECT_NEAR(schedule.at(0, 1), 0.2, 1e-12);
}

TEST(Schedule, StepsDownInStagesOfEqualLength) {
  Schedule schedule = named("step");
  schedule.stages = 4;
  schedule.stage_factor = 0.5;
  using Points = std::vector<std::pair<double, double>>;
  const Points points{{0.0, 2.0}, {0.24, 2.0}, {0.25, 1.0}, {0.74, 0.5}, {0.75, 0.25}, {1.0, 0.25}};
  for (const auto& [done, rate] : points) {
    EXPECT_DOUBLE_EQ(schedule.at(0, done), rate) << done;
  }
}

TEST(Schedule, InverseSquareRootTouchesTheEndOfTheWarmup) {
  Schedule schedule = named("inverse_sqrt");
  schedule.warmup_steps = 100;
  EXPECT_DOUBLE_EQ(schedule.at(49, 0.9), 1.0);
  EXPECT_DOUBLE_EQ(schedule.at(99, 0.1), 2.0);
  EXPECT_DOUBLE_EQ(schedule.at(399, 0.2), 1.0);
  schedule.warmup_steps = 0;
  EXPECT_DOUBLE_EQ(schedule.at(3, 0), 1.0);
}

TEST(Schedule, WarmupStableDecayFallsAtTheEndOnly) {
  Schedule schedule = named("warmup_stable_decay");
  schedule.decay_share = 0.4;
  EXPECT_DOUBLE_EQ(schedule.at(0, 0.6), 2.0);
  EXPECT_NEAR(schedule.at(0, 0.7), 2.0 * (1 - 0.9 * 0.5), 1e-12);
  EXPECT_NEAR(schedule.at(0, 1), 0.2, 1e-12);
}

TEST(Schedule, OneCycleRisesThenFalls) {
  Schedule schedule = named("one_cycle", 0.0);
  schedule.rise_share = 0.25;
  EXPECT_NEAR(schedule.at(0, 0), 2.0 / 25, 1e-12);
  EXPECT_NEAR(schedule.at(0, 0.125), (2.0 + 2.0 / 25) / 2, 1e-12);
  EXPECT_NEAR(schedule.at(0, 0.25), 2.0, 1e-12);
  EXPECT_NEAR(schedule.at(0, 0.625), 1.0, 1e-12);
  EXPECT_NEAR(schedule.at(0, 1), 0.0, 1e-12);
}

TEST(Schedule, EveryOneStaysBetweenZeroAndLr) {
  for (const auto& name : schedule_names()) {
    const Schedule schedule = named(name.c_str());
    schedule.check();
    for (int i = 0; i <= 1000; ++i) {
      const double rate = schedule.at(i, i / 1000.0);
      EXPECT_TRUE(rate >= 0 && rate <= 2.0 + 1e-12) << name << " " << i;
    }
  }
}

TEST(Schedule, UnknownNameNamesTheNearest) {
  try {
    Schedule{"cosin", 1.0, 0.1, 0}.check();
    FAIL();
  } catch (const core::ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("nearest is \"cosine\""), std::string::npos);
  }
}

}  // namespace
}  // namespace omnima::optim

#include "omnima/optim/schedule.h"

#include <gtest/gtest.h>

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

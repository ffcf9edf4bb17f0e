#include "omnima/kernels/cpu/cpu_features.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "omnima/core/error.h"

namespace omnima::kernels {
namespace {

int one() { return 1; }
int two() { return 2; }

TEST(CpuFeatures, LevelsHaveTheNamesOfTheirFiles) {
  EXPECT_STREQ(level_name(Level::kGeneric), "generic");
  EXPECT_STREQ(level_name(Level::kAvx512Bf16), "avx512bf16");
  EXPECT_STREQ(level_name(Level::kAmx), "amx");
}

TEST(CpuFeatures, TheActiveLevelNeverExceedsTheCpus) {
  EXPECT_LE(active_level(), detected_level());
}

TEST(CpuFeatures, ADetectedLevelIsBackedByItsFeatures) {
  const auto all = features();
  const auto has = [&](const char* name) {
    return std::find(all.begin(), all.end(), name) != all.end();
  };
  EXPECT_EQ(detected_level() >= Level::kAvx512, has("avx512f") && has("avx512bw"));
  EXPECT_TRUE(detected_level() < Level::kAvx2 || (has("avx2") && has("fma") && has("f16c")));
}

TEST(CpuFeatures, ALevelIsFoundByItsName) {
  EXPECT_EQ(level_from_name("avx2", Level::kAvx512), Level::kAvx2);
}

TEST(CpuFeatures, ALackingLevelIsAnErrorThatListsTheOnesHere) {
  try {
    level_from_name("avx512", Level::kAvx2);
    FAIL() << "no error was thrown";
  } catch (const core::ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("lacks. This CPU has: generic, avx2."),
              std::string::npos)
        << error.what();
  }
}

TEST(CpuFeatures, AnUnknownLevelIsAnError) {
  EXPECT_THROW(level_from_name("avx1024", Level::kAvx512Bf16), core::ConfigError);
}

TEST(Variants, ALevelWithoutItsOwnTakesTheNextLower) {
  const Variants<int (*)()> table{{Level::kGeneric, one}, {Level::kAvx512, two}};
  EXPECT_EQ(table.at(Level::kAvx2)(), 1);
  EXPECT_EQ(table.at(Level::kAvx512)(), 2);
  EXPECT_EQ(table.at(Level::kAvx512Bf16)(), 2);
  EXPECT_EQ(table.levels(Level::kAvx2).size(), 1u);
  EXPECT_EQ(table.levels(Level::kAvx512Bf16).size(), 2u);
}

// The level is chosen once a process, so each case is a process of its own.
TEST(CpuFeaturesDeathTest, TheEnvironmentForcesALevel) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        ::setenv("OMNIMA_CPU_ISA", "generic", 1);
        std::exit(active_level() == Level::kGeneric ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "");
  EXPECT_EXIT(
      {
        ::setenv("OMNIMA_CPU_ISA", "avx9000", 1);
        try {
          active_level();
        } catch (const core::ConfigError& error) {
          std::fputs(error.what(), stderr);
          std::exit(3);
        }
      },
      ::testing::ExitedWithCode(3), "avx9000.*not the name of an instruction set");
}

}  // namespace
}  // namespace omnima::kernels

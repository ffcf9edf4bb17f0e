#include "omnima/core/error.h"

#include <gtest/gtest.h>

namespace omnima::core {
namespace {

TEST(Error, MessageJoinsItsParts) { EXPECT_EQ(message("row ", 3, " of ", 7), "row 3 of 7"); }

TEST(Error, RequireThrowsTheClassAskedForWithTheMessage) {
  try {
    require<ConfigError>(false, "hidden_size is ", 3);
    FAIL() << "no error was thrown";
  } catch (const ConfigError& error) {
    EXPECT_STREQ(error.what(), "hidden_size is 3");
  }
}

TEST(Error, RequireIsSilentWhenTheConditionHolds) { EXPECT_NO_THROW(require(true, "unused")); }

}  // namespace
}  // namespace omnima::core

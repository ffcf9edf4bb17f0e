// What an error in the middle of an update becomes.
#include "omnima/train/whole_update.h"

#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <functional>
#include <new>
#include <stdexcept>
#include <string>

#include "omnima/core/error.h"

namespace omnima::train {
namespace {

TEST(WholeUpdate, DoesWhatItIsGiven) {
  int done = 0;
  whole_or_fatal([&] { ++done; });
  EXPECT_EQ(done, 1);
}

void expect_fatal(const std::function<void()>& update, const std::string& reason) {
  try {
    whole_or_fatal(update);
    FAIL() << "nothing was thrown";
  } catch (const core::Error& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find(reason), std::string::npos) << text;
    EXPECT_NE(text.find("last checkpoint"), std::string::npos) << text;
  }
}

TEST(WholeUpdate, AShortageOfMemoryIsNoShortageThatCanBeMended) {
  expect_fatal([] { throw std::bad_alloc(); }, "memory ran out");
  expect_fatal([] { TORCH_CHECK(false, "out of memory on a device"); }, "out of memory on a");
}

TEST(WholeUpdate, OtherErrorsStayAsTheyAre) {
  EXPECT_THROW(whole_or_fatal([] { throw std::out_of_range("x"); }), std::out_of_range);
}

}  // namespace
}  // namespace omnima::train

// Denormal numbers are zero while asked for, and the thread's setting comes back.
#include "omnima/core/flush_denormals.h"

#include <gtest/gtest.h>

#include <limits>
#include <thread>

namespace omnima::core {
namespace {

bool keeps_denormals() {
  volatile float tiny = std::numeric_limits<float>::min();
  return tiny * 0.5f > 0.0f;
}

#if defined(__SSE__) || defined(__aarch64__)
constexpr bool kCanFlush = true;
#else
constexpr bool kCanFlush = false;
#endif

TEST(FlushDenormals, LastsAsLongAsItLives) {
  EXPECT_TRUE(keeps_denormals());
  {
    const FlushDenormals outer;
    EXPECT_EQ(keeps_denormals(), !kCanFlush);
    { const FlushDenormals inner; }
    EXPECT_EQ(keeps_denormals(), !kCanFlush);  // what the outer one set comes back
  }
  EXPECT_TRUE(keeps_denormals());
}

TEST(FlushDenormals, IsOfOneThread) {
  bool other = false;
  std::thread([&] {
    const FlushDenormals flush;
    other = true;
  }).join();
  EXPECT_TRUE(other);
  EXPECT_TRUE(keeps_denormals());
}

}  // namespace
}  // namespace omnima::core

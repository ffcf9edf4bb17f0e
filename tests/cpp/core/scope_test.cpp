// Scopes are recorded with their work, nested and from any thread, and only while asked for.
#include "omnima/core/scope.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>

namespace omnima::core {
namespace {

TEST(Scope, IsNotKeptWhileNothingRecords) {
  { const Scope scope("before"); }
  start_recording();
  const auto spans = stop_recording();
  EXPECT_TRUE(spans.empty());
  { const Scope scope("after"); }
  EXPECT_TRUE(stop_recording().empty());
}

TEST(Scope, KeepsItsWorkAndLiesInsideItsParent) {
  start_recording();
  {
    const Scope outer("outer");
    const Scope inner("inner", 6.0, 7.0);
  }
  const auto spans = stop_recording();
  ASSERT_EQ(spans.size(), 2u);
  EXPECT_EQ(std::string(spans[0].name), "inner");  // the inner one ends first
  EXPECT_EQ(spans[0].flops, 6.0);
  EXPECT_EQ(spans[0].bytes, 7.0);
  EXPECT_EQ(spans[0].team, 1);
  EXPECT_EQ(spans[0].thread, spans[1].thread);
  EXPECT_LE(spans[1].begin, spans[0].begin);
  EXPECT_LE(spans[0].begin, spans[0].end);
  EXPECT_LE(spans[0].end, spans[1].end);
  EXPECT_GE(spans[1].begin, 0);
}

TEST(Scope, SaysOnWhichThreadAndInWhichTeam) {
  start_recording();
  {
    const ScopeTeam team(2);
    std::thread other([] { const Scope scope("part"); });
    { const Scope scope("part"); }
    other.join();
  }
  { const Scope scope("alone"); }
  const auto spans = stop_recording();
  ASSERT_EQ(spans.size(), 3u);
  EXPECT_NE(spans[0].thread, spans[1].thread);
  EXPECT_EQ(spans[0].team, 2);
  EXPECT_EQ(spans[1].team, 2);
  EXPECT_EQ(spans[2].team, 1);
}

TEST(Scope, ThatOutlivesItsRecordingIsLeftOut) {
  start_recording();
  {
    const Scope scope("late");
    EXPECT_TRUE(stop_recording().empty());
  }
  start_recording();
  EXPECT_TRUE(stop_recording().empty());
}

}  // namespace
}  // namespace omnima::core

// The thread team: every index once, pieces of the asked size, awake or asleep.
#include "omnima/generate/team.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <limits>
#include <thread>
#include <vector>

namespace omnima::generate {
namespace {

void expect_each_once(Team& team, std::int64_t count, std::int64_t grain) {
  std::vector<std::atomic<int>> visits(static_cast<std::size_t>(count));
  std::atomic<int> strange{0};
  team.run(count, grain, [&](std::int64_t begin, std::int64_t end, int thread) {
    if (begin < 0 || end > count || begin >= end || thread < 0 || thread >= team.size()) ++strange;
    for (std::int64_t i = begin; i < end; ++i) ++visits[static_cast<std::size_t>(i)];
  });
  EXPECT_EQ(strange, 0);
  for (std::int64_t i = 0; i < count; ++i) {
    ASSERT_EQ(visits[static_cast<std::size_t>(i)], 1)
        << i << " of " << count << ", grain " << grain;
  }
}

TEST(Team, VisitsEveryIndexOnceInManyRounds) {
  for (const int threads : {1, 2, 3}) {
    Team team(threads);
    EXPECT_EQ(team.size(), threads);
    for (int round = 0; round < 50; ++round) {
      for (const std::int64_t count : {0, 1, 2, 7, 64, 1001}) {
        for (const std::int64_t grain : {0, 1, 3, 64}) expect_each_once(team, count, grain);
      }
    }
  }
}

TEST(Team, PiecesAreOfTheGrainButTheLast) {
  Team team(2);
  std::vector<std::atomic<std::int64_t>> sizes(4);
  team.run(31, 8, [&](std::int64_t begin, std::int64_t end, int) {
    sizes[static_cast<std::size_t>(begin / 8)] = end - begin;
  });
  EXPECT_EQ(sizes[0], 8);
  EXPECT_EQ(sizes[1], 8);
  EXPECT_EQ(sizes[2], 8);
  EXPECT_EQ(sizes[3], 7);
}

TEST(Team, ASmallRangeIsRunByTheCallerAlone) {
  Team team(3);
  std::thread::id runner;
  team.run(16, 16, [&](std::int64_t begin, std::int64_t end, int thread) {
    EXPECT_EQ(begin, 0);
    EXPECT_EQ(end, 16);
    EXPECT_EQ(thread, 0);
    runner = std::this_thread::get_id();
  });
  EXPECT_EQ(runner, std::this_thread::get_id());
}

TEST(Team, WakesAfterItsThreadsHaveGoneToSleep) {
  Team team(2);
  for (int round = 0; round < 3; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    expect_each_once(team, 100, 1);
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // and ends while they sleep
}

TEST(Team, AThreadThatIsDelayedIsWaitedFor) {
  Team team(2);
  std::atomic<int> done{0};
  team.run(2, 1, [&](std::int64_t, std::int64_t, int) {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    ++done;
  });
  EXPECT_EQ(done, 2);
}

TEST(Team, AThreadThatIsLateIsNotWaitedFor) {
  // The threads of a fresh team are only just beginning, and come at any time of its rounds.
  for (int i = 0; i < 200; ++i) {
    Team fresh(3);
    for (const std::int64_t count : {10, 3, 64}) expect_each_once(fresh, count, 1);
  }
}

TEST(Team, RoundsThatFollowAtOnceAreNotMixed) {
  Team team(3);
  std::vector<std::int64_t> sums(64);
  for (std::int64_t round = 0; round < 20000; ++round) {
    const std::int64_t count = 2 + round % 63;
    team.run(count, 1, [&, round](std::int64_t begin, std::int64_t, int) { sums[begin] = round; });
    for (std::int64_t i = 0; i < count; ++i) ASSERT_EQ(sums[i], round);
  }
}

TEST(Team, MillionsOfPiecesAreMadeFewer) {
  Team team(2);
  std::atomic<std::int64_t> sum{0}, pieces{0};
  team.run(5'000'000, 1, [&](std::int64_t begin, std::int64_t end, int) {
    sum += end - begin;
    ++pieces;
  });
  EXPECT_EQ(sum, 5'000'000);
  EXPECT_LT(pieces, 1 << 20);
}

TEST(Team, SeveralTeamsDoNotDisturbEachOther) {
  std::vector<std::thread> callers;
  for (int i = 0; i < 3; ++i) {
    callers.emplace_back([] {
      Team team(2);
      for (int round = 0; round < 20; ++round) expect_each_once(team, 100, 3);
    });
  }
  for (auto& caller : callers) caller.join();
}

#if defined(__SSE__) || defined(__aarch64__)
TEST(Team, ItsThreadsTakeDenormalsAsZeroAndTheCallerAsItDid) {
  Team team(3);
  std::atomic<int> kept{0}, by_caller{0};
  for (int round = 0; round < 50; ++round) {
    team.run(100, 1, [&](std::int64_t, std::int64_t, int thread) {
      volatile float tiny = std::numeric_limits<float>::min();
      if (tiny * 0.5f > 0.0f) ++(thread == 0 ? by_caller : kept);
    });
  }
  EXPECT_EQ(kept, 0);
  EXPECT_GT(by_caller, 0);
}
#endif

}  // namespace
}  // namespace omnima::generate

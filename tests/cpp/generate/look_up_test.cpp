// What is copied from a text: the place that is most alike, past a token that differs, and as much
// as pays.
#include "omnima/generate/look_up.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace omnima::generate {
namespace {

using Ids = std::vector<std::int64_t>;

Ids looked_up(const Ids& ids, std::int64_t most) {
  Ids proposals;
  LookUp(most).propose(ids, Pace(), 0, most, proposals);
  return proposals;
}

// What a row more costs as much as a step.
Pace dear() {
  Pace pace;
  for (std::int64_t rows = 1; rows <= 16; ++rows) pace.learn(rows, static_cast<double>(rows));
  return pace;
}

TEST(LookUp, ContinuesTheLatestPlaceThatAgreesLongest) {
  EXPECT_EQ(looked_up({1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3}, 3), (Ids{4, 9, 2}));  // three agree
  EXPECT_EQ(looked_up({7, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3}, 2), (Ids{5, 1}));     // two: the latest
  EXPECT_EQ(looked_up({2, 3, 8, 2, 3}, 1), (Ids{8}));                          // from the start
  EXPECT_EQ(looked_up({2, 7, 2}, 1), (Ids{7}));                                // one
}

TEST(LookUp, RepeatsWhatRepeats) {
  EXPECT_EQ(looked_up({5, 5, 5}, 4), (Ids{5, 5, 5, 5}));
  EXPECT_EQ(looked_up({1, 2, 3, 1, 2, 3, 1, 2}, 5), (Ids{3, 1, 2, 3, 1}));
}

TEST(LookUp, GoesOnBehindATokenThatDiffers) {
  const Ids line{1, 2, 3, 4, 50, 6, 7, 8, 1, 2, 3, 4, 51};
  EXPECT_EQ(looked_up(line, 3), (Ids{6, 7, 8}));
  // Of two places with the same latest token, the one with more agreement behind the difference.
  EXPECT_EQ(looked_up({1, 2, 3, 4, 50, 6, 7, 90, 6, 8, 1, 2, 3, 4, 51, 6}, 1), (Ids{7}));
  // Two tokens are too few to look alike.
  EXPECT_EQ(looked_up({3, 4, 50, 6, 7, 8, 3, 4, 51}, 3), Ids{});
}

TEST(LookUp, IsSilentWhereNothingAgrees) {
  for (const Ids& ids : {Ids{}, Ids{1}, Ids{1, 2, 3, 4}}) EXPECT_EQ(looked_up(ids, 4), Ids{});
  EXPECT_EQ(looked_up({5, 5, 5}, 0), Ids{});
}

TEST(LookUp, ProposesNothingThatCostsMoreThanItBrings) {
  Ids proposals;
  LookUp(4).propose(Ids{5, 5, 5, 5, 5, 5, 5, 5, 5}, dear(), 0, 4, proposals);
  EXPECT_EQ(proposals, Ids{});
}

// Proposals in a text that goes on with `next`, in as many steps; each step writes one token.
std::int64_t proposed(LookUp& look_up, Ids& text, const Pace& pace, int steps, const auto& next) {
  std::int64_t count = 0;
  for (int i = 0; i < steps; ++i) {
    Ids proposals;
    look_up.propose(text, pace, 0, 8, proposals);
    count += std::ssize(proposals);
    text.push_back(next(text));
  }
  return count;
}

TEST(LookUp, FallsSilentThoughNoPlainStepWasMeasuredFirst) {
  Pace pace;
  LookUp look_up(8);
  Ids text{1, 1};
  std::mt19937 random(3);
  std::int64_t late = 0;
  for (int i = 0; i < 400; ++i) {
    Ids proposals;
    look_up.propose(text, pace, 0, 8, proposals);
    const auto count = std::ssize(proposals);
    pace.learn(1 + count, 1e-3 * (1 + 0.2 * static_cast<double>(count)));
    if (i >= 200) late += count;
    auto token = static_cast<std::int64_t>(random() % 6);
    if (count > 0 && token == proposals.front()) token = (token + 1) % 6;  // no guess is right
    text.push_back(token);
  }
  EXPECT_LT(late, 40);
}

TEST(LookUp, FallsSilentWhereItIsWrongAndSpeaksAgainWhereItIsRight) {
  Pace pace;  // four rows take twice as long as one
  for (std::int64_t rows = 1; rows <= 16; ++rows) {
    pace.learn(rows, 1 + 0.33 * static_cast<double>(rows - 1));
  }
  std::mt19937 random(7);
  const auto noise = [&](const Ids&) { return static_cast<std::int64_t>(random() % 6); };
  const auto repeat = [](const Ids& text) { return text[text.size() - 5]; };
  LookUp look_up(8);
  Ids text{0, 1, 2, 3, 4};
  proposed(look_up, text, pace, 200, noise);  // learns
  const std::int64_t wrong = proposed(look_up, text, pace, 100, noise);
  proposed(look_up, text, pace, 60, repeat);
  const std::int64_t right = proposed(look_up, text, pace, 100, repeat);
  EXPECT_LT(wrong, 60);
  EXPECT_GT(right, 700);
}

}  // namespace
}  // namespace omnima::generate

// Patterns of blocks: stretches and counts against what each pair of tokens says.
#include "omnima/core/block_pattern.h"

#include <gtest/gtest.h>

#include <vector>

namespace omnima::core {
namespace {

bool sees(const BlockPattern& p, std::int64_t head, std::int64_t query, std::int64_t key) {
  return key <= query && p.sees(head, query / p.size, key / p.size);
}

const std::vector<BlockPattern> kPatterns{{1, 1, 2},    {1, 3, 5, 2},  {4, 1, 3}, {4, 2, 3, 1},
                                          {7, 3, 8, 4}, {16, 1, 2, 1}, {64, 2, 3}};

TEST(BlockPattern, StretchesHoldTheKeysThatAreSeenInOrder) {
  for (const BlockPattern& p : kPatterns) {
    for (std::int64_t head = 0; head < 3; ++head) {
      for (std::int64_t token = 0; token < 90; ++token) {
        std::vector<std::int64_t> wanted, got;
        for (std::int64_t key = 0; key <= token; ++key) {
          if (sees(p, head, token, key)) wanted.push_back(key);
        }
        std::int64_t before = -1;
        p.for_stretches(head, token, [&](std::int64_t begin, std::int64_t end) {
          EXPECT_GT(begin, before) << "stretches that touch are one";
          before = end;
          for (std::int64_t key = begin; key < end; ++key) got.push_back(key);
        });
        EXPECT_EQ(got, wanted) << p.size << ' ' << head << ' ' << token;
      }
    }
  }
}

TEST(BlockPattern, PairsAreCounted) {
  for (const BlockPattern& p : kPatterns) {
    for (const std::int64_t time : {1, 5, 64, 90}) {
      double wanted = 0;
      for (std::int64_t i = 0; i < 3 * time * time; ++i) {
        wanted += sees(p, i / (time * time), i / time % time, i % time);
      }
      EXPECT_EQ(seen_pairs(time, 3, 0, p), wanted) << p.size << ' ' << time;
    }
  }
  EXPECT_EQ(seen_pairs(5, 2, 0, {}), 30);
  EXPECT_EQ(seen_pairs(5, 2, 3, {}), 24);
  EXPECT_EQ(seen_pairs(5, 1, 9, {}), 15);
}

// Child et al. 2019, as Phi-3-small has it: a token of block 5 sees blocks 4 and 5, and 2, 5, … of
// its first head, 1, 4, … of its second.
TEST(BlockPattern, HeadsSeeOtherStridedBlocks) {
  const BlockPattern p{1, 2, 3, 1};
  std::vector<std::int64_t> first, second;
  for (std::int64_t key = 0; key <= 5; ++key) {
    if (p.sees(0, 5, key)) first.push_back(key);
    if (p.sees(1, 5, key)) second.push_back(key);
  }
  EXPECT_EQ(first, (std::vector<std::int64_t>{2, 4, 5}));
  EXPECT_EQ(second, (std::vector<std::int64_t>{1, 4, 5}));
}

}  // namespace
}  // namespace omnima::core

// Merges out of lines of text.
#include "omnima/text/merge_lines.h"

#include <gtest/gtest.h>

#include "omnima/core/error.h"

namespace omnima::text {
namespace {

using Views = std::vector<std::string_view>;

TEST(MergeLines, AreIdsOfBothPiecesAndOfWhatTheyMake) {
  const Views pieces{"a", "b", "ab", "abb"}, lines{"a b", "ab b"};
  const auto merges = merges_of_lines(pieces, lines);
  ASSERT_EQ(merges.size(), 2u);
  EXPECT_EQ(merges[0].left, 0u);
  EXPECT_EQ(merges[0].right, 1u);
  EXPECT_EQ(merges[0].result, 2u);
  EXPECT_EQ(merges[1].left, 2u);
  EXPECT_EQ(merges[1].result, 3u);
}

TEST(MergeLines, OfUnknownPiecesAreNamed) {
  const Views pieces{"a", "b", "ab"};
  for (const std::string_view line : {"b a", "a", "", "a ", "c b", "a c", "a b b"}) {
    try {
      merges_of_lines(pieces, Views{line});
      ADD_FAILURE() << line;
    } catch (const core::DataError& error) {
      EXPECT_EQ(std::string(error.what()),
                "the merge '" + std::string(line) + "' is not of tokens that are there");
    }
  }
}

}  // namespace
}  // namespace omnima::text

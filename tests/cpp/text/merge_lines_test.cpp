// Merges out of lines of text.
#include "omnima/text/merge_lines.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "omnima/core/error.h"

namespace omnima::text {
namespace {

using Views = std::vector<std::string_view>;

TEST(MergeLines, AreIdsOfBothPiecesAndOfWhatTheyMake) {
  const Views pieces{"a", "b", "ab", "abb"}, lines{"a b", "ab b"};
  const auto merges = merges_of_lines(PieceIndex(pieces), lines);
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
      merges_of_lines(PieceIndex(pieces), Views{line});
      ADD_FAILURE() << line;
    } catch (const core::DataError& error) {
      EXPECT_EQ(std::string(error.what()),
                "the merge '" + std::string(line) + "' is not of tokens that are there");
    }
  }
}

TEST(MergeLines, OfPiecesThatStandTwiceAreOfTheFirst) {
  const Views pieces{"a", "b", "ab", "abb", "ab"}, lines{"ab b", "a b"};
  const PieceIndex index(pieces);
  EXPECT_TRUE(index.holds_twice());
  EXPECT_EQ(merges_of_lines(index, lines)[1].result, 2u);
}

TEST(PieceIndexes, FindPiecesOfEveryLengthAndNothingElse) {
  std::vector<std::string> texts;
  for (std::size_t length = 0; length < 40; ++length) {
    for (const char last : {'a', 'b'}) {
      for (std::size_t at = 0; at < std::max<std::size_t>(length, 1); ++at) {
        std::string text(length, '.');
        if (length > 0) text[at] = last;
        texts.push_back(text);
      }
    }
  }
  std::sort(texts.begin(), texts.end());
  texts.erase(std::unique(texts.begin(), texts.end()), texts.end());
  const Views all(texts.begin(), texts.end());
  const PieceIndex index(all);
  EXPECT_FALSE(index.holds_twice());
  for (std::size_t i = 0; i < all.size(); ++i) EXPECT_EQ(index.find(all[i]), i) << all[i];
  for (const std::string& text : texts) EXPECT_EQ(index.find(text + "c"), kNoId) << text;
}

}  // namespace
}  // namespace omnima::text

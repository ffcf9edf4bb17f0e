#include "omnima/text/utf8.h"

#include <gtest/gtest.h>

namespace omnima::text {
namespace {

std::string replaced(std::string_view bytes) {
  std::string out;
  EXPECT_EQ(append_replaced(bytes, false, out), bytes.size());
  return out;
}

TEST(Utf8, ValidTextOfEveryLengthHasNoInvalidByte) {
  EXPECT_EQ(find_invalid_utf8(""), std::string_view::npos);
  EXPECT_EQ(find_invalid_utf8("plain ascii of some length, é 我 🦊"), std::string_view::npos);
}

TEST(Utf8, TheFirstInvalidByteIsFound) {
  EXPECT_EQ(find_invalid_utf8("0123456789\xFFrest"), 10u);
  EXPECT_EQ(find_invalid_utf8("ab\xC3"), 2u);            // unfinished
  EXPECT_EQ(find_invalid_utf8("\xC0\x80"), 0u);          // overlong
  EXPECT_EQ(find_invalid_utf8("a\xED\xA0\x80"), 1u);     // surrogate
  EXPECT_EQ(find_invalid_utf8("\xF4\x90\x80\x80"), 0u);  // above U+10FFFF
  EXPECT_EQ(find_invalid_utf8("\xE0\x80\x80"), 0u);      // overlong
  EXPECT_EQ(find_invalid_utf8("\xF0\x80\x80\x80"), 0u);  // overlong
}

TEST(Utf8, CodePointsOfOneToFourBytes) {
  EXPECT_EQ(code_point("A"), 0x41u);
  EXPECT_EQ(code_point("é"), 0xE9u);
  EXPECT_EQ(code_point("我"), 0x6211u);
  EXPECT_EQ(code_point("🦊"), 0x1F98Au);
}

TEST(Utf8, AMaximalSubpartBecomesOneReplacement) {
  EXPECT_EQ(replaced("a\xE6\x88z"), "a\uFFFDz");
  EXPECT_EQ(replaced("\xF0\x9F\xA6"), "\uFFFD");
  EXPECT_EQ(replaced("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(replaced("\x80\xFF"
                     "é"),
            "\uFFFD\uFFFDé");
}

TEST(Utf8, AnUnfinishedTailIsHeldWhenAsked) {
  std::string out;
  EXPECT_EQ(append_replaced("ab\xF0\x9F", true, out), 2u);
  EXPECT_EQ(out, "ab");
}

}  // namespace
}  // namespace omnima::text

// Texts of any bytes and ids in any order: every kind of tokenizer takes them or says what is
// wrong, and touches nothing beside them. Made for the address sanitizer.
#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>

#include "omnima/core/error.h"
#include "omnima/text/stream_decoder.h"
#include "omnima/text/tokenizer.h"
#include "omnima/text/utf8.h"
#include "text_fixture.h"

namespace omnima::text {
namespace {

std::vector<std::shared_ptr<const Tokenizer>> every_kind() {
  const std::vector<std::string> pieces = {" ", "a", "b", "ab", "é", " a", "abab", "日", "aa"};
  return {std::make_shared<const Tokenizer>(make_vocabulary(Algorithm::kBpe, pieces)),
          std::make_shared<const Tokenizer>(
              make_unigram_vocabulary(pieces, {-1, -2, -2, -1.5, -3, -2, -2.5, -4, -3}))};
}

// Mostly text, with stray bytes: characters cut off, overlong forms, zero bytes.
std::string any_bytes(std::mt19937& draw) {
  const std::vector<std::string> parts = {"a", "b", "ab", " ", "é", "日本", "😀", "\n", "abab"};
  const std::vector<std::string> stray = {"\xc3", "\xe6\x97", "\xf0\x9f",          "\x80",
                                          "\xff", "\xc0\xaf", std::string(1, '\0')};
  std::string text;
  const bool clean = draw() % 2;
  for (unsigned count = draw() % 40; count > 0; --count) {
    text += !clean && draw() % 8 == 0 ? stray[draw() % stray.size()] : parts[draw() % parts.size()];
  }
  return text;
}

TEST(AnyBytes, AreEncodedWholeOrRefused) {
  std::mt19937 draw(1);
  int refused = 0;
  for (const auto& tokenizer : every_kind()) {
    for (int i = 0; i < 3000; ++i) {
      const std::string text = any_bytes(draw);
      const std::unique_ptr<char[]> exact(new char[text.size()]);
      std::copy(text.begin(), text.end(), exact.get());
      std::vector<Id> ids;
      try {
        tokenizer->encode({exact.get(), text.size()}, ids);
        EXPECT_EQ(tokenizer->decode(ids), text);
      } catch (const core::DataError&) {
        EXPECT_LT(find_invalid_utf8(text), text.size());
        ++refused;
      }
    }
  }
  EXPECT_GT(refused, 500);
}

TEST(AnyBytes, IdsInAnyOrderDecodeAsAStreamAsTheyDoAtOnce) {
  std::mt19937 draw(2);
  for (const auto& tokenizer : every_kind()) {
    for (int i = 0; i < 1000; ++i) {
      std::vector<Id> ids(draw() % 30);
      for (Id& id : ids) id = static_cast<Id>(draw() % tokenizer->size());
      StreamDecoder stream(tokenizer);
      std::string joined;
      for (const Id id : ids) {
        joined += stream.push(id);
        EXPECT_EQ(find_invalid_utf8(joined), std::string::npos);
      }
      joined += stream.finish();
      EXPECT_EQ(joined, tokenizer->decode(ids));
    }
  }
}

}  // namespace
}  // namespace omnima::text

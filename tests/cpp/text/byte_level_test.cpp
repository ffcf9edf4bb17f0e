#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "omnima/core/error.h"
#include "omnima/text/split.h"
#include "omnima/text/tokenizer.h"
#include "omnima/text/unicode.h"
#include "text_fixture.h"

namespace omnima::text {
namespace {

using Pieces = std::vector<std::string>;

Pieces pieces_of(std::string_view pattern, std::string_view text) {
  const Splitter splitter(pattern_of(pattern));
  Pieces pieces;
  for (std::size_t start = 0, end = 0; start < text.size(); start = end) {
    end = splitter.end_of_piece(text, start);
    pieces.emplace_back(text.substr(start, end - start));
  }
  return pieces;
}

TEST(Splitter, GptTwoTakesOneSpaceAlong) {
  EXPECT_EQ(pieces_of("gpt2", "it's  a  9é-- 'LL \n"),
            Pieces({"it", "'s", " ", " a", " ", " 9", "é", "--", " '", "LL", " \n"}));
  EXPECT_EQ(pieces_of("gpt2", "we've we'll we're '"),
            Pieces({"we", "'ve", " we", "'ll", " we", "'re", " '"}));
  EXPECT_EQ(pieces_of("gpt2", "a \u00a0b"), Pieces({"a", " ", "\u00a0", "b"}));
}

TEST(Splitter, DigitsStandAlone) {
  EXPECT_EQ(pieces_of("gpt2-digits", "a  12b 3  c"),
            Pieces({"a", "  ", "1", "2", "b", " ", "3", " ", " c"}));
}

TEST(Splitter, LinesAndNumbersOfTheLaterPatterns) {
  EXPECT_EQ(pieces_of("llama3", "A'Ll 12345\n\n  x!=\n\n  "),
            Pieces({"A", "'Ll", " ", "123", "45", "\n\n", " ", " x", "!=\n\n", "  "}));
  EXPECT_EQ(pieces_of("qwen2", "-ab 12"), Pieces({"-ab", " ", "1", "2"}));
  EXPECT_EQ(pieces_of("llama3", "x\n  "), Pieces({"x", "\n", "  "}));
  EXPECT_EQ(pieces_of("cl100k", "x\n  "), Pieces({"x", "\n  "}));
  EXPECT_EQ(pieces_of("llama3", "a'\u017Fb"), Pieces({"a", "'\u017F", "b"}));
}

TEST(Splitter, WordsByCase) {
  EXPECT_EQ(pieces_of("o200k", "HTTPServer isn't"), Pieces({"HTTPServer", " isn't"}));
  EXPECT_EQ(pieces_of("o200k", "camelCase CASE'S"), Pieces({"camel", "Case", " CASE'S"}));
  EXPECT_EQ(pieces_of("o200k", "中AB -/\n/x"), Pieces({"中", "AB", " -/\n/", "x"}));
  EXPECT_EQ(pieces_of("o200k", "\u0301 1234  \n a"),
            Pieces({"\u0301", " ", "123", "4", "  \n", " a"}));
}

TEST(Splitter, PatternsHaveNames) {
  EXPECT_EQ(pattern_names().size(), 6u);
  EXPECT_THROW(pattern_of("gpt9"), core::DataError);
}

std::string nfc(std::string_view text) {
  std::string buffer;
  return std::string(to_nfc(text, buffer));
}

TEST(Unicode, TextIsComposed) {
  EXPECT_EQ(nfc("plain é 我 🦊"), "plain é 我 🦊");
  EXPECT_EQ(nfc("e\u0301"), "é");
  EXPECT_EQ(nfc("a\u0323\u0302"), "\u1EAD");         // both marks compose
  EXPECT_EQ(nfc("a\u0302\u0323"), "\u1EAD");         // ordered first
  EXPECT_EQ(nfc("q\u0307\u0323"), "q\u0323\u0307");  // ordered only
  EXPECT_EQ(nfc("\u0301a"), "\u0301a");
  EXPECT_EQ(nfc("\u212B\u0344"), "\u00C5\u0308\u0301");  // singletons and exclusions
  EXPECT_EQ(nfc("\u1100\u1161\u11A8"), "\uAC01");        // Hangul
  EXPECT_EQ(nfc("\uAC00\u11A8\uAC01\u0301\u11A8"), "\uAC01\uAC01\u0301\u11A8");
}

TEST(Unicode, EveryLengthIsWritten) {
  std::string text;
  for (const std::uint32_t point : {0x41u, 0xE9u, 0x6211u, 0x1F98Au}) append_utf8(point, text);
  EXPECT_EQ(text, "Aé我🦊");
  EXPECT_EQ(char_classes()[0x41] & kLetter, kUpper);
}

// The 256 bytes in the alphabet of byte-level vocabularies, then the pieces.
Vocabulary byte_level(const std::vector<std::string>& pieces,
                      const std::vector<std::pair<std::string, std::string>>& merges) {
  Vocabulary vocabulary;
  for (int byte = 0; byte < 256; ++byte) {
    append_utf8(byte_alphabet()[byte], vocabulary.pieces.emplace_back());
  }
  vocabulary.pieces.insert(vocabulary.pieces.end(), pieces.begin(), pieces.end());
  vocabulary.roles.assign(vocabulary.pieces.size(), Role::kText);
  const auto id_of = [&](const std::string& piece) {
    return static_cast<Id>(std::ranges::find(vocabulary.pieces, piece) - vocabulary.pieces.begin());
  };
  for (const auto& [left, right] : merges) {
    vocabulary.merges.push_back({id_of(left), id_of(right), id_of(left + right)});
  }
  vocabulary.pattern = Pattern::kGpt2;
  return vocabulary;
}

std::vector<Id> encode(const Vocabulary& vocabulary, std::string_view text,
                       const EncodeOptions& options = {}) {
  std::vector<Id> ids;
  Tokenizer(vocabulary).encode(text, ids, options);
  return ids;
}

TEST(ByteLevel, MergesStayInsideOfPieces) {
  const Vocabulary vocabulary = byte_level({"Ġa", "ab", "bb"}, {{"Ġ", "a"}, {"a", "b"}});
  EXPECT_EQ(encode(vocabulary, "ab a b"), std::vector<Id>({257, 256, ' ', 'b'}));
  const std::string text = "ab é\x01\n 我";
  const Tokenizer tokenizer(vocabulary);
  EXPECT_EQ(tokenizer.decode(encode(vocabulary, text)), text);
  EXPECT_EQ(tokenizer.piece(256), "Ġa");
}

TEST(ByteLevel, AWholePieceComesFirstWhenAsked) {
  Vocabulary vocabulary = byte_level({"bb"}, {});
  EXPECT_EQ(encode(vocabulary, "bb").size(), 2u);
  vocabulary.whole_first = true;
  EXPECT_EQ(encode(vocabulary, "bb b"), std::vector<Id>({256, ' ', 'b'}));
}

TEST(ByteLevel, TextIsComposedBeforeItIsCut) {
  Vocabulary vocabulary = byte_level({}, {});
  vocabulary.nfc = true;
  EXPECT_EQ(encode(vocabulary, "e\u0301"), encode(vocabulary, "é"));
}

TEST(ByteLevel, AddedTokensAreReadAndDecoded) {
  Vocabulary vocabulary = byte_level({"<tool>"}, {});
  vocabulary.roles.back() = Role::kAdded;
  const std::vector<Id> ids = encode(vocabulary, "a<tool>", {.parse_special = true});
  EXPECT_EQ(ids, std::vector<Id>({'a', 256}));
  EXPECT_EQ(Tokenizer(vocabulary).decode(ids), "a<tool>");
  EXPECT_EQ(encode(vocabulary, "<tool>").size(), 6u);
}

TEST(ByteLevel, WhatCannotSpellEveryTextIsRefused) {
  EXPECT_THROW(Tokenizer(byte_level({"我"}, {})), core::DataError);
  Vocabulary vocabulary = byte_level({}, {});
  vocabulary.pieces['a'] = "aa";
  EXPECT_THROW(Tokenizer{vocabulary}, core::DataError);
  vocabulary = byte_level({}, {});
  vocabulary.algorithm = Algorithm::kUnigram;
  EXPECT_THROW(Tokenizer{vocabulary}, core::DataError);
}

Vocabulary words(const std::vector<std::string>& pieces) {
  Vocabulary vocabulary;
  vocabulary.algorithm = Algorithm::kWord;
  vocabulary.pieces = {"<unk>"};
  vocabulary.pieces.insert(vocabulary.pieces.end(), pieces.begin(), pieces.end());
  vocabulary.roles.assign(vocabulary.pieces.size(), Role::kText);
  vocabulary.roles[0] = Role::kSpecial;
  vocabulary.unknown = 0;
  vocabulary.pattern = Pattern::kGpt2;
  return vocabulary;
}

TEST(Words, AreFoundWholeOrUnknown) {
  const Vocabulary vocabulary = words({"the", " fox"});
  const std::vector<Id> ids = encode(vocabulary, "the fox hen");
  EXPECT_EQ(ids, std::vector<Id>({1, 2, 0}));
  EXPECT_EQ(Tokenizer(vocabulary).decode(ids), "the fox\uFFFD");
  Vocabulary incomplete = words({});
  incomplete.unknown.reset();
  EXPECT_THROW(Tokenizer{incomplete}, core::DataError);
  EXPECT_THROW(
      Tokenizer(vocabulary).encode_dropped("the", 0.5, 1, *std::make_unique<std::vector<Id>>()),
      core::ConfigError);
}

TEST(Dropout, LeavesMergesOutByChance) {
  const Tokenizer tokenizer(byte_level({"ab", "abab"}, {{"a", "b"}, {"ab", "ab"}}));
  const auto cut = [&](double dropout, std::uint64_t key) {
    std::vector<Id> ids;
    tokenizer.encode_dropped("abab", dropout, key, ids);
    EXPECT_EQ(tokenizer.decode(ids), "abab");
    return ids;
  };
  EXPECT_EQ(cut(0.0, 3), std::vector<Id>({257}));
  EXPECT_EQ(cut(1.0, 3).size(), 4u);
  EXPECT_EQ(cut(0.5, 9), cut(0.5, 9));
  // A pair stays apart with probability p; both then merge, or the whole stays apart too.
  int whole = 0;
  constexpr int kDraws = 20000;
  for (int key = 0; key < kDraws; ++key) whole += cut(0.5, key).size() == 1 ? 1 : 0;
  // First step: at least one of two pairs is kept, 3/4; then the other, 1/2; then the whole, 1/2.
  EXPECT_NEAR(whole / double{kDraws}, 0.75 * 0.5 * 0.5, 0.02);
  std::vector<Id> ids;
  EXPECT_THROW(tokenizer.encode_dropped("a", 2.0, 0, ids), core::ConfigError);
  EXPECT_THROW(tokenizer.encode_dropped("\xFF", 0.5, 0, ids), core::DataError);
}

TEST(Dropout, RecutKeepsControlTokensAndBrokenBytes) {
  Vocabulary vocabulary = byte_level({"ab", "<end>"}, {{"a", "b"}});
  vocabulary.roles.back() = Role::kSpecial;
  const Tokenizer tokenizer(vocabulary);
  const std::vector<Id> ids = {0xA0, 256, 257, 256, 0xF0, 0x9F};
  std::vector<Id> kept, apart;
  tokenizer.recut(ids, 0.0, 1, kept);
  EXPECT_EQ(kept, ids);
  tokenizer.recut(ids, 1.0, 1, apart);
  EXPECT_EQ(apart, std::vector<Id>({0xA0, 'a', 'b', 257, 'a', 'b', 0xF0, 0x9F}));
  const std::vector<Id> outside = {9999};
  EXPECT_THROW(tokenizer.recut(outside, 0.5, 1, kept), core::DataError);
}

}  // namespace
}  // namespace omnima::text

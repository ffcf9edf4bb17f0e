// Vocabularies whose pieces spell spaces as U+2581: how text is marked, found, cut and read back.
#include "omnima/text/marking.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>

#include "omnima/core/error.h"
#include "omnima/text/character_map.h"
#include "omnima/text/scored_merges.h"
#include "omnima/text/stream_decoder.h"
#include "omnima/text/tokenizer.h"
#include "text_fixture.h"

namespace omnima::text {
namespace {

using Ids = std::vector<Id>;

std::string marked(std::string_view text, Marking marking, bool opens = true) {
  std::string buffer;
  return std::string(mark(text, opens, marking, buffer));
}

// Ids from 259 on: ▁ a b ▁a ab ▁▁
Vocabulary llama_like(Prefix prefix, Opening opening) {
  Vocabulary vocabulary =
      make_vocabulary(Algorithm::kBpe, {"\u2581", "a", "b", "\u2581a", "ab", "\u2581\u2581"});
  vocabulary.marking = Marking{.prefix = prefix, .opening = opening, .in_normalizer = true};
  return vocabulary;
}

Ids encoded(const Tokenizer& tokenizer, std::string_view text, bool parse_special = false) {
  Ids ids;
  tokenizer.encode(text, ids, {.parse_special = parse_special});
  return ids;
}

TEST(Mark, PutsASpaceInFrontByTheRule) {
  EXPECT_EQ(marked("a b", {}), "a b");
  EXPECT_EQ(marked("a\u2581b", {}), "a b");
  EXPECT_EQ(marked("", {.prefix = Prefix::kEvery}), "");
  EXPECT_EQ(marked(" a", {.prefix = Prefix::kEvery}), "  a");
  EXPECT_EQ(marked(" a", {.prefix = Prefix::kAlways}), " a");
  EXPECT_EQ(marked("\u2581a", {.prefix = Prefix::kAlways}), " a");
  EXPECT_EQ(marked("a", {.prefix = Prefix::kAlways}, false), " a");
  EXPECT_EQ(marked("a", {.prefix = Prefix::kFirst}), " a");
  EXPECT_EQ(marked("a", {.prefix = Prefix::kFirst}, false), "a");
}

TEST(Mark, CollapsesSpacesAsSentencePieceDoes) {
  const Marking cleaning{.prefix = Prefix::kEvery, .collapse = true};
  EXPECT_EQ(marked("  a   b  ", cleaning), " a b");
  EXPECT_EQ(marked("   ", cleaning), "");
  EXPECT_EQ(marked("a", {.collapse = true}), "a");
  EXPECT_EQ(marked("a\u2581\u2581", cleaning), " a");
}

// A map from "a" to "xy" and from "b" to nothing, as a double array written by hand.
std::string small_map() {
  std::vector<std::uint32_t> units(256, 0);
  units[0] = 1u << 10;  // the children of the root are at 1 ^ label
  const auto place = [&](char label, std::uint32_t value, std::uint32_t offset) {
    const std::uint32_t at = 1u ^ static_cast<unsigned char>(label);
    units[at] = offset << 10 | 1u << 8 | static_cast<unsigned char>(label);
    units[at ^ offset] = 1u << 31 | value;
  };
  place('a', 0, 8);
  place('b', 3, 16);
  std::string bytes(4, '\0');
  const auto size = static_cast<std::uint32_t>(units.size() * 4);
  std::memcpy(bytes.data(), &size, 4);
  bytes.append(reinterpret_cast<const char*>(units.data()), size);
  bytes.append("xy\0\0", 4);
  return bytes;
}

TEST(CharacterMap, ReplacesTheLongestEntry) {
  Marking marking{.prefix = Prefix::kEvery};
  marking.characters = std::make_shared<CharacterMap>(small_map());
  EXPECT_EQ(marked("cab\u00e9", marking), " cxy\u00e9");
}

TEST(CharacterMap, RefusesWhatIsNone) {
  const std::string map = small_map();
  for (const std::string& bytes :
       {std::string(), std::string("abc"), map.substr(0, 900), map.substr(0, map.size() - 1) + "x",
        std::string("\xff\xff\xff\xff", 4) + map.substr(4), map.substr(0, 1028) + "\xff" + '\0'}) {
    EXPECT_THROW(CharacterMap{bytes}, core::DataError) << bytes.size();
  }
}

TEST(CharacterMap, AReplacementBeginsWithACharacter) {
  std::string map = small_map();
  map.replace(map.size() - 4, 4, std::string("\u00e9\0", 3) + '\0');  // "a" gives this
  const char beginning = map[4 + 4 * (1 ^ 'a' ^ 8)];
  EXPECT_EQ(CharacterMap(map).step("a").replacement, "\u00e9");
  map[4 + 4 * (1 ^ 'a' ^ 8)] = static_cast<char>(beginning + 1);  // its second byte
  EXPECT_EQ(CharacterMap(map).step("a").replacement, "a");

  Vocabulary vocabulary = make_unigram_vocabulary({"a"}, {-1.0});
  vocabulary.marking = Marking{.in_normalizer = true, .sentencepiece = true};
  vocabulary.marking->characters = std::make_shared<CharacterMap>(map);
  EXPECT_EQ(encoded(Tokenizer(vocabulary), "a"), (Ids{259}));
}

TEST(CharacterMap, ARingOfUnitsEnds) {
  std::string map = small_map();
  const auto set = [&](std::uint32_t at, std::uint32_t unit) {
    std::memcpy(map.data() + 4 + 4 * static_cast<std::size_t>(at), &unit, 4);
  };
  const std::uint32_t first = 1u ^ 'a', second = first ^ 2u ^ 'a';
  set(first, 2u << 10 | 'a');
  set(second, (second ^ 1u) << 10 | 'a');  // back to the first
  const CharacterMap ring(map);
  const std::string text(1 << 18, 'a');
  EXPECT_EQ(ring.step(text).length, 1u);
  Marking marking;
  marking.characters = std::make_shared<CharacterMap>(ring);
  EXPECT_EQ(marked(text, marking), text) << "in a moment, not in minutes";
}

TEST(CharacterMap, AnyBytesOfATrieStayWithinIt) {
  std::string map = small_map();
  for (std::size_t at = 4; at < 1028; at += 3) {
    map[at] = static_cast<char>(at * 37);
    const CharacterMap any(map);
    for (const char* text : {"a", "b", "ab", "\u00e9", "\xF0\x9F\xA6\x8A"}) {
      const auto step = any.step(text);
      EXPECT_GE(step.length, 1u);
      EXPECT_LE(step.length, std::strlen(text));
    }
  }
}

TEST(Marked, SpacesAndMarksAreOne) {
  const Tokenizer tokenizer(llama_like(Prefix::kEvery, Opening::kSpace));
  EXPECT_EQ(encoded(tokenizer, "ab a"), (Ids{262, 261, 262}));
  EXPECT_EQ(encoded(tokenizer, "ab\u2581a"), (Ids{262, 261, 262}));
  EXPECT_EQ(encoded(tokenizer, " a"), (Ids{259, 262}));
  EXPECT_EQ(encoded(tokenizer, ""), Ids{});
  EXPECT_EQ(encoded(tokenizer, "</s>a", true), (Ids{2, 262}));
  EXPECT_EQ(tokenizer.decode(Ids{262, 261, 262}), "ab a");
  EXPECT_EQ(tokenizer.piece(262), "\u2581a");
}

TEST(Marked, ATextGoesOnBehindWhatIsShown) {
  const auto tokenizer =
      std::make_shared<const Tokenizer>(llama_like(Prefix::kEvery, Opening::kSpace));
  const Ids ids = {262, 261};
  EXPECT_EQ(tokenizer->decode(ids, true, Ids{1}), "ab");
  EXPECT_EQ(tokenizer->decode(ids, true, Ids{1, 262}), " ab");
  EXPECT_EQ(tokenizer->decode(ids, true, Ids{1, 262, 2}), "ab");
  EXPECT_EQ(tokenizer->decode(ids, false, Ids{1}), "ab") << "a special token puts a mark behind it";
  const Tokenizer first(llama_like(Prefix::kFirst, Opening::kSpace));
  EXPECT_EQ(first.decode(ids, true, Ids{1, 262, 2}), " ab");
  StreamDecoder stream(tokenizer, true, Ids{262});
  EXPECT_EQ(stream.push(262) + stream.finish(), " a");
  StreamDecoder fresh(tokenizer);
  for (int i = 0; i < 2; ++i) {
    std::string text;
    for (const Id id : Ids{1, 262, 262}) text += fresh.push(id);
    EXPECT_EQ(text + fresh.finish(), "a a");
  }
  EXPECT_THROW(tokenizer->decode(ids, true, Ids{999}), core::DataError);
}

TEST(Marked, EveryOpeningTakesItsOwn) {
  const Ids ids = {264, 259, 262};  // three marks, then the fourth before a
  const auto text = [&](Opening opening, const Ids& row) {
    return Tokenizer(llama_like(Prefix::kEvery, opening)).decode(row);
  };
  EXPECT_EQ(text(Opening::kNothing, ids), "    a");
  EXPECT_EQ(text(Opening::kSpace, ids), "   a");
  EXPECT_EQ(text(Opening::kMark, ids), "   a");
  EXPECT_EQ(text(Opening::kMarks, ids), "   a");
  EXPECT_EQ(text(Opening::kMarks, Ids{259, 259, 262}), "a");
  EXPECT_EQ(text(Opening::kPiece, ids), "  a");
  EXPECT_EQ(text(Opening::kPiece, Ids{3 + ' ', 262}), "  a");
  EXPECT_EQ(text(Opening::kMark, Ids{3 + ' ', 262}), "  a") << "a byte is no mark";
  EXPECT_EQ(text(Opening::kSpace, Ids{3 + ' ', 262}), " a");
}

TEST(Marked, ARunOfBytesIsTextAsAWholeOrCharacterByCharacter) {
  const Ids ids = {3 + 0xC3, 3 + 0xA9, 3 + 0xE6, 3 + 0x97, 260};
  Vocabulary vocabulary = llama_like(Prefix::kNever, Opening::kNothing);
  EXPECT_EQ(Tokenizer(vocabulary).decode(ids), "\uFFFD\uFFFD\uFFFD\uFFFDa");
  vocabulary.marking->sentencepiece = true;
  EXPECT_EQ(Tokenizer(vocabulary).decode(ids), "\u00e9\uFFFD\uFFFDa");
}

TEST(Marked, TokensTakeSpacesAlong) {
  Vocabulary vocabulary = llama_like(Prefix::kEvery, Opening::kSpace);
  vocabulary.found = {{.id = 1, .text = "<s>", .strips_left = true, .strips_right = true}};
  EXPECT_EQ(encoded(Tokenizer(vocabulary), "a \u3000<s>\n a", true), (Ids{262, 1, 262}));
  EXPECT_EQ(encoded(Tokenizer(vocabulary), "<s> <s>", true), (Ids{1, 1}));
}

TEST(Marked, TokensOfUsersAreAlwaysFound) {
  Vocabulary vocabulary = llama_like(Prefix::kEvery, Opening::kSpace);
  vocabulary.pieces.push_back("bb");
  vocabulary.roles.push_back(Role::kUser);
  vocabulary.found = {{.id = 265, .text = "bb"}, {.id = 1, .text = "abba"}};
  EXPECT_EQ(encoded(Tokenizer(vocabulary), "abb a"), (Ids{262, 265, 259, 262}));
  EXPECT_EQ(encoded(Tokenizer(vocabulary), "abba", true), (Ids{1}));
  EXPECT_EQ(encoded(Tokenizer(vocabulary), "abba").size(), 4u) << "what is left out hides others";
  vocabulary.found[0].after_normalizer = true;
  EXPECT_EQ(encoded(Tokenizer(vocabulary), "abb a"), (Ids{262, 265, 262}));
}

TEST(Marked, AWordBeginsAtEveryMark) {
  Vocabulary vocabulary = llama_like(Prefix::kNever, Opening::kNothing);
  EXPECT_EQ(encoded(Tokenizer(vocabulary), "  b"), (Ids{264, 261}));
  vocabulary.marking = Marking{.words = true};
  EXPECT_EQ(encoded(Tokenizer(vocabulary), "  b"), (Ids{259, 259, 261}));
  const std::string spaces(1 << 19, ' ');
  EXPECT_EQ(encoded(Tokenizer(vocabulary), spaces), Ids(spaces.size(), 259));
}

// <unk> a b, without byte tokens.
Vocabulary with_unknown(Algorithm algorithm) {
  Vocabulary vocabulary;
  vocabulary.algorithm = algorithm;
  vocabulary.pieces = {"<unk>", "a", "\u2581b"};
  vocabulary.roles = {Role::kSpecial, Role::kText, Role::kText};
  if (algorithm == Algorithm::kUnigram) vocabulary.scores = {0, -1, -2};
  vocabulary.unknown = 0;
  vocabulary.fuse_unknown = true;
  vocabulary.marking = Marking{};
  return vocabulary;
}

TEST(Marked, NeighbouringUnknownCharactersAreOne) {
  for (const Algorithm algorithm : {Algorithm::kBpe, Algorithm::kUnigram}) {
    EXPECT_EQ(encoded(Tokenizer(with_unknown(algorithm)), "日本🦊a語 語"), (Ids{0, 1, 0}));
  }
  Vocabulary single = with_unknown(Algorithm::kBpe);
  single.fuse_unknown = false;
  EXPECT_EQ(encoded(Tokenizer(single), "日本a"), (Ids{0, 0, 1}));
  EXPECT_EQ(Tokenizer(single).decode(Ids{0, 1}, false), "<unk>a");
  EXPECT_EQ(Tokenizer(single).decode(Ids{0, 1}), "a");
  single.marking->sentencepiece = true;
  EXPECT_EQ(Tokenizer(single).decode(Ids{0, 1}), " \u2047 a");
}

TEST(ScoredMerges, TheBestScoreIsMergedFirstOfEqualsFromTheLeft) {
  Vocabulary vocabulary = make_vocabulary(Algorithm::kBpe, {"a", "aa", "aaa", "b", "ab"});
  vocabulary.merges.clear();
  vocabulary.scores.assign(vocabulary.pieces.size(), 0.0);
  vocabulary.scores[260] = -1;  // aa
  vocabulary.scores[261] = -2;  // aaa
  vocabulary.scores[263] = -0.5;
  EXPECT_EQ(encoded(Tokenizer(vocabulary), "aaab"), (Ids{260, 263}));
  EXPECT_EQ(encoded(Tokenizer(vocabulary), "aaaaa"), (Ids{260, 261}));
  vocabulary.scores.pop_back();
  EXPECT_THROW(Tokenizer{vocabulary}, core::DataError);
}

TEST(ScoredMerges, AVeryLongPieceCostsNoTime) {
  Vocabulary vocabulary = make_vocabulary(Algorithm::kBpe, {"a", "aa"});
  vocabulary.merges.clear();
  for (int i = 0; i < 26; ++i)
    vocabulary.pieces.push_back(std::string(1, static_cast<char>('b' + i)));
  vocabulary.pieces.push_back(std::string(1 << 19, 'a'));
  vocabulary.roles.resize(vocabulary.pieces.size(), Role::kText);
  vocabulary.scores.assign(vocabulary.pieces.size(), 0.0);
  EXPECT_EQ(scored_merges(vocabulary).merges.size(), 1u);
}

TEST(ScoredMerges, CanBeLeftOutByChance) {
  Vocabulary vocabulary = make_vocabulary(Algorithm::kBpe, {"a", "aa"});
  vocabulary.merges.clear();
  vocabulary.scores.assign(vocabulary.pieces.size(), 0.0);
  Ids ids;
  Tokenizer(vocabulary).encode_dropped("aa", 1.0, 1, ids);
  EXPECT_EQ(ids, (Ids{259, 259}));
}

TEST(ScoredMerges, ACharacterMayBePartOfAPieceWithoutBeingOne) {
  Vocabulary vocabulary = make_vocabulary(Algorithm::kBpe, {"a", "a\u00e9"});
  vocabulary.scores.assign(vocabulary.pieces.size(), -1.0);
  ASSERT_EQ(scored_merges(vocabulary).strangers, (std::vector<std::uint32_t>{0xE9}));
  EXPECT_EQ(encoded(Tokenizer(vocabulary), "a\u00e9\u00e9"), (Ids{260, 3 + 0xC3, 3 + 0xA9}));
  Vocabulary bare = with_unknown(Algorithm::kBpe);
  bare.pieces[2] = "a\u00e9";
  bare.scores = {0, -1, -2};
  EXPECT_EQ(encoded(Tokenizer(bare), "a\u00e9\u00e9\u00e9a"), (Ids{2, 0, 1}));
}

TEST(Marked, WhatDoesNotFitTogetherIsRefused) {
  Vocabulary few = llama_like(Prefix::kEvery, Opening::kSpace);
  few.roles.pop_back();
  EXPECT_THROW(Tokenizer{few}, core::DataError);
  Vocabulary vocabulary = llama_like(Prefix::kEvery, Opening::kSpace);
  vocabulary.found = {{.id = 999, .text = "x"}};
  EXPECT_THROW(Tokenizer{vocabulary}, core::DataError);
  vocabulary.found = {{.id = 1, .text = ""}};
  EXPECT_THROW(Tokenizer{vocabulary}, core::DataError);
  Vocabulary words = with_unknown(Algorithm::kWord);
  words.pattern = Pattern::kGpt2;
  EXPECT_THROW(Tokenizer{words}, core::DataError);
}

}  // namespace
}  // namespace omnima::text

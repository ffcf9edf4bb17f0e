#include "omnima/text/model.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "omnima/core/error.h"
#include "omnima/text/pair_table.h"
#include "text_fixture.h"

namespace omnima::text {
namespace {

std::vector<std::string> cut(const Model& model, const Vocabulary& vocabulary,
                             std::string_view chunk) {
  std::vector<Id> ids;
  model.encode(chunk, ids);
  std::vector<std::string> pieces;
  for (const Id id : ids) pieces.push_back(vocabulary.pieces[id]);
  return pieces;
}

using Pieces = std::vector<std::string>;

TEST(Bpe, LowerRankGoesFirstThenLeftmost) {
  const auto vocabulary = make_vocabulary(Algorithm::kBpe, {"bc", "ab", "abc", "a", "b", "c"});
  const auto model = make_bpe(vocabulary);
  EXPECT_EQ(cut(*model, vocabulary, "abc"), Pieces({"abc"}));  // bc, then a+bc
  EXPECT_EQ(cut(*model, vocabulary, "abb"), Pieces({"ab", "b"}));
  EXPECT_EQ(cut(*model, vocabulary, "abcbcab"), Pieces({"abc", "bc", "ab"}));
}

TEST(Bpe, RunsMergeFromTheLeft) {
  const auto vocabulary = make_vocabulary(Algorithm::kBpe, {"aa", "aaaa", "a"});
  const auto model = make_bpe(vocabulary);
  EXPECT_EQ(cut(*model, vocabulary, "aaaaaaa"), Pieces({"aaaa", "aa", "a"}));
}

TEST(Bpe, WhatIsNotInTheVocabularyFallsToBytes) {
  const auto vocabulary = make_vocabulary(Algorithm::kBpe, {"a"});
  const auto model = make_bpe(vocabulary);
  EXPECT_EQ(cut(*model, vocabulary, "aéb"), Pieces({"a", "<0xC3>", "<0xA9>", "<0x62>"}));
}

TEST(Bpe, AnUnknownTokenStandsForACharacter) {
  Vocabulary vocabulary;
  vocabulary.pieces = {"<unk>", "é", "b"};
  vocabulary.roles = {Role::kSpecial, Role::kText, Role::kText};
  vocabulary.unknown = 0;
  const auto model = make_bpe(vocabulary);
  EXPECT_EQ(cut(*model, vocabulary, "é我b"), Pieces({"é", "<unk>", "b"}));
  vocabulary.unknown.reset();
  EXPECT_EQ(cut(*make_bpe(vocabulary), vocabulary, "é我b"), Pieces({"é", "b"}));
}

// The best score over all cuts, by trying them all.
double best_score(const std::map<std::string, double>& scores, const std::string& text) {
  if (text.empty()) return 0.0;
  double best = -1e9;
  for (std::size_t length = 1; length <= text.size(); ++length) {
    const auto found = scores.find(text.substr(0, length));
    if (found == scores.end()) continue;
    best = std::max(best, found->second + best_score(scores, text.substr(length)));
  }
  return best;
}

TEST(Unigram, FindsTheBestOfAllCuts) {
  std::mt19937 random(7);
  const Pieces pieces = {"a", "b", "c", "ab", "bc", "ca", "abc", "bca", "aab"};
  for (int round = 0; round < 50; ++round) {
    std::vector<double> scores;
    std::map<std::string, double> by_piece;
    for (const std::string& piece : pieces) {
      scores.push_back(-1.0 - static_cast<double>(random() % 1024) / 128);
      by_piece[piece] = scores.back();
    }
    const auto vocabulary = make_unigram_vocabulary(pieces, scores);
    std::string text;
    for (int i = 0; i < 9; ++i) text += "abc"[random() % 3];
    double total = 0.0;
    std::string joined;
    for (const std::string& piece : cut(*make_unigram(vocabulary), vocabulary, text)) {
      total += by_piece.at(piece);
      joined += piece;
    }
    EXPECT_EQ(joined, text);
    EXPECT_DOUBLE_EQ(total, best_score(by_piece, text));
  }
}

TEST(Unigram, UnknownCharactersBecomeBytesAndByteNamesStayText) {
  const auto vocabulary =
      make_unigram_vocabulary({"a", "<", "0", "x", "4", "1", ">"}, {-1, -5, -5, -5, -5, -5, -5});
  const auto model = make_unigram(vocabulary);
  EXPECT_EQ(cut(*model, vocabulary, "aé"), Pieces({"a", "<0xC3>", "<0xA9>"}));
  EXPECT_EQ(cut(*model, vocabulary, "<0x41>").size(), 6u);
}

TEST(Unigram, NeedsByteTokens) {
  Vocabulary vocabulary;
  vocabulary.algorithm = Algorithm::kUnigram;
  vocabulary.pieces = {"a"};
  vocabulary.roles = {Role::kText};
  vocabulary.scores = {-1.0};
  EXPECT_THROW(make_unigram(vocabulary), core::DataError);
}

TEST(PairTable, FindsWhatWasPutInAndTheLastValueWins) {
  PairTable table(1000);
  for (std::uint32_t i = 0; i < 1000; ++i) table.insert(i, i * 7, {i, i + 1});
  table.insert(5, 35, {1, 2});
  EXPECT_EQ(table.find(999, 6993)->second, 1000u);
  EXPECT_EQ(table.find(5, 35)->first, 1u);
  EXPECT_EQ(table.find(5, 36), nullptr);
}

}  // namespace
}  // namespace omnima::text

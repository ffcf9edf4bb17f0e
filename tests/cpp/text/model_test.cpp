#include "omnima/text/model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>

#include "omnima/core/error.h"
#include "omnima/text/pair_table.h"
#include "omnima/text/tokenizer.h"
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

// Every cut of a text with the exponent of its probability.
using Cuts = std::map<Pieces, double>;
void all_cuts(const std::map<std::string, double>& scores, const std::string& text, Pieces& before,
              double score, Cuts& cuts) {
  if (text.empty()) cuts[before] = score;
  for (std::size_t length = 1; length <= text.size(); ++length) {
    const auto found = scores.find(text.substr(0, length));
    if (found == scores.end()) continue;
    before.push_back(found->first);
    all_cuts(scores, text.substr(length), before, score + found->second, cuts);
    before.pop_back();
  }
}

TEST(Unigram, DrawsEveryCutByThePowerOfItsProbability) {
  const std::map<std::string, double> scores = {{"a", -2.0},   {"b", -1.5},  {"c", -3.0},
                                                {"ab", -2.5},  {"bc", -4.0}, {"abc", -4.5},
                                                {"cab", -5.0}, {"ca", -6.0}, {"aab", -5.5}};
  Pieces pieces, before;
  std::vector<double> values;
  for (const auto& [piece, score] : scores) {
    pieces.push_back(piece);
    values.push_back(score);
  }
  const auto vocabulary = make_unigram_vocabulary(pieces, values);
  const auto model = make_unigram(vocabulary);
  const std::string text = "abcabc";
  Cuts cuts;
  all_cuts(scores, text, before, 0.0, cuts);
  ASSERT_GT(cuts.size(), 15u);
  constexpr int kDraws = 40000;
  for (const double alpha : {0.0, 0.3, 1.0, 2.0}) {
    double total = 0.0;
    for (const auto& [cut, score] : cuts) total += std::exp(alpha * score);
    core::Random random(11);
    std::map<Pieces, int> found;
    for (int i = 0; i < kDraws; ++i) {
      std::vector<Id> ids;
      model->encode_by_chance(text, alpha, random, ids);
      Pieces drawn;
      for (const Id id : ids) drawn.push_back(vocabulary.pieces[id]);
      ++found[drawn];
    }
    double distance = 0.0;
    for (const auto& [cut, score] : cuts) {
      const double expected = kDraws * std::exp(alpha * score) / total;
      distance += (found[cut] - expected) * (found[cut] - expected) / expected;
    }
    EXPECT_EQ(found.size(), cuts.size());
    // The mean of chi-square is its degrees of freedom, its variance twice that.
    const double freedom = static_cast<double>(cuts.size() - 1);
    EXPECT_LT(distance, freedom + 4.0 * std::sqrt(2.0 * freedom)) << "alpha " << alpha;
  }
}

TEST(Unigram, LongTextsAndSharpDrawsStayFinite) {
  const auto vocabulary = make_unigram_vocabulary({"a", "b", "ab", "ba"}, {-3, -2, -4, -6});
  const auto model = make_unigram(vocabulary);
  std::string text;
  for (int i = 0; i < 3000; ++i) text += i % 3 == 0 ? "ab" : "é";
  core::Random random(3);
  std::vector<Id> best, drawn;
  model->encode(text, best);
  model->encode_by_chance(text, 1e6, random, drawn);
  EXPECT_EQ(drawn, best);
  drawn.clear();
  model->encode_by_chance(text, 0.0, random, drawn);
  EXPECT_GT(drawn.size(), best.size());  // "ab" in two or in one, alike
  const Tokenizer tokenizer(vocabulary);
  EXPECT_EQ(tokenizer.decode(drawn), text);
  std::vector<Id> once, again;
  tokenizer.encode_sampled(text, 0.5, 9, once);
  tokenizer.encode_sampled(text, 0.5, 9, again);
  EXPECT_EQ(once, again);
  for (const double alpha : {-0.1, 1e7, std::nan("")}) {
    EXPECT_THROW(tokenizer.encode_sampled(text, alpha, 9, once), core::ConfigError);
  }
  EXPECT_THROW(Tokenizer(make_vocabulary(Algorithm::kBpe, {"a"})).encode_sampled("a", 1, 0, once),
               core::ConfigError);
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

TEST(Model, RefusesAStretchBeyondItsPositions) {
  // The length is looked at before any byte is.
  const std::string_view huge("a", (std::size_t{1} << 30) + 1);
  const auto unigram = make_unigram(make_unigram_vocabulary({"a"}, {-1.0}));
  const auto bpe = make_bpe(make_vocabulary(Algorithm::kBpe, {"a"}));
  std::vector<Id> ids;
  core::Random random(1);
  EXPECT_THROW(unigram->encode(huge, ids), core::DataError);
  EXPECT_THROW(unigram->encode_by_chance(huge, 1.0, random, ids), core::DataError);
  EXPECT_THROW(bpe->encode(huge, ids), core::DataError);
  EXPECT_THROW(bpe->encode_by_chance(huge, 0.5, random, ids), core::DataError);
}

}  // namespace
}  // namespace omnima::text

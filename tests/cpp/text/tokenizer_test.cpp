#include "omnima/text/tokenizer.h"

#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "omnima/core/error.h"
#include "omnima/text/stream_decoder.h"
#include "text_fixture.h"

namespace omnima::text {
namespace {

Vocabulary small() {
  return make_vocabulary(Algorithm::kBpe, {" t", "he", " the", "  ", " ", "t", "h", "e", "é"});
}

std::vector<Id> encode(const Tokenizer& tokenizer, std::string_view text,
                       const EncodeOptions& options = {}) {
  std::vector<Id> ids;
  tokenizer.encode(text, ids, options);
  return ids;
}

std::string random_text(std::mt19937& random) {
  static const std::vector<std::string> parts = {"t",    "h", "e",  " ",  "the",
                                                 " the", "é", "我", "\n", "x"};
  std::string text;
  for (std::size_t i = random() % 60; i > 0; --i) text += parts[random() % parts.size()];
  return text;
}

TEST(Tokenizer, ChunksAndCacheChangeNothing) {
  const Tokenizer tokenizer(small());
  const auto model = make_bpe(tokenizer.vocabulary());
  std::mt19937 random(3);
  for (int round = 0; round < 500; ++round) {
    const std::string text = random_text(random);
    std::vector<Id> whole;
    model->encode(text, whole);
    EXPECT_EQ(encode(tokenizer, text), whole) << text;
    EXPECT_EQ(tokenizer.decode(whole), text);
  }
}

TEST(Tokenizer, LongChunksAreNotCached) {
  const Tokenizer tokenizer(make_vocabulary(Algorithm::kBpe, {"ab", "ba", "a", "b"}));
  std::string text;
  for (int i = 0; i < 500; ++i) text += "ab";
  EXPECT_EQ(encode(tokenizer, text).size(), 500u);
  EXPECT_EQ(encode(tokenizer, text.substr(0, 22)).size(), 11u);
  EXPECT_EQ(encode(tokenizer, text.substr(0, 22)).size(), 11u);
}

TEST(Tokenizer, BeginAndEndAreAddedOnce) {
  const Tokenizer tokenizer(small());
  const EncodeOptions all{.add_bos = true, .add_eos = true, .parse_special = true};
  EXPECT_EQ(encode(tokenizer, "", all), std::vector<Id>({1, 2}));
  EXPECT_EQ(encode(tokenizer, "<s></s>", all), std::vector<Id>({1, 2}));
  std::vector<Id> ids = {1};  // appended to: what was there before does not count
  tokenizer.encode("t", ids, all);
  EXPECT_EQ(ids.size(), 4u);
}

TEST(Tokenizer, AbsentBeginAndEndAreErrors) {
  Vocabulary vocabulary = small();
  vocabulary.bos.reset();
  vocabulary.eos.reset();
  const Tokenizer tokenizer(vocabulary);
  EXPECT_THROW(encode(tokenizer, "t", {.add_bos = true}), core::DataError);
  EXPECT_THROW(encode(tokenizer, "t", {.add_eos = true}), core::DataError);
}

TEST(Tokenizer, TheLongestSpecialAtAPlaceIsTaken) {
  Vocabulary vocabulary = small();
  for (const char* piece : {"<|a", "<|a|>"}) {
    vocabulary.pieces.emplace_back(piece);
    vocabulary.roles.push_back(Role::kSpecial);
  }
  const Tokenizer tokenizer(vocabulary);
  const Id shorter = static_cast<Id>(tokenizer.size() - 2), longer = shorter + 1;
  const auto ids = encode(tokenizer, "<|a|><|at<", {.parse_special = true});
  EXPECT_EQ(ids[0], longer);
  EXPECT_EQ(ids[1], shorter);
  EXPECT_EQ(tokenizer.decode(ids), "t<");
  EXPECT_EQ(tokenizer.decode(ids, false), "<|a|><|at<");
  EXPECT_EQ(tokenizer.decode(encode(tokenizer, "<|a|>")), "<|a|>");
}

TEST(Tokenizer, InvalidTextAndIdsAreNamed) {
  const Tokenizer tokenizer(small());
  try {
    encode(tokenizer, "the \xFF");
    FAIL();
  } catch (const core::DataError& error) {
    EXPECT_STREQ(error.what(), "invalid Unicode at byte 4 of the text; expected UTF-8");
  }
  const std::vector<Id> ids = {0, 268};
  EXPECT_THROW(tokenizer.decode(ids), core::DataError);
  EXPECT_THROW(tokenizer.piece(268), core::DataError);
  EXPECT_EQ(tokenizer.piece(267), "é");
}

TEST(Tokenizer, BatchesOnThreadsEqualOneByOne) {
  const Tokenizer tokenizer(small());
  std::mt19937 random(5);
  std::vector<std::string> texts;
  for (int i = 0; i < 3000; ++i) texts.push_back(random_text(random));
  const std::vector<std::string_view> views(texts.begin(), texts.end());
  for (const int threads : {0, 1, 4}) {
    const auto batch = tokenizer.encode_batch(views, {}, threads);
    for (std::size_t i = 0; i < texts.size(); ++i) ASSERT_EQ(batch[i], encode(tokenizer, texts[i]));
  }
}

TEST(Tokenizer, AnErrorInABatchIsThrown) {
  const Tokenizer tokenizer(small());
  std::vector<std::string> texts(2000, "the the the the the the the the the the the");
  texts[1500] = "\xC0";
  const std::vector<std::string_view> views(texts.begin(), texts.end());
  EXPECT_THROW(tokenizer.encode_batch(views, {}, 3), core::DataError);
}

TEST(Tokenizer, ManyThreadsMayEncodeAtOnce) {
  const Tokenizer tokenizer(small());
  const auto expected = encode(tokenizer, "the the é 我 the");
  std::vector<std::thread> threads;
  std::array<bool, 4> same{};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      same[t] = true;
      for (int i = 0; i < 500; ++i)
        same[t] = same[t] && encode(tokenizer, "the the é 我 the") == expected;
    });
  }
  for (auto& thread : threads) thread.join();
  for (const bool one : same) EXPECT_TRUE(one);
}

TEST(StreamDecoder, PartsJoinToTheWholeForAnyIds) {
  const auto tokenizer = std::make_shared<const Tokenizer>(small());
  std::mt19937 random(11);
  for (int round = 0; round < 500; ++round) {
    std::vector<Id> ids(random() % 30);
    for (Id& id : ids) id = random() % tokenizer->size();
    StreamDecoder decoder(tokenizer);
    std::string joined;
    for (const Id id : ids) joined += decoder.push(id);
    joined += decoder.finish();
    EXPECT_EQ(joined, tokenizer->decode(ids));
  }
}

TEST(StreamDecoder, ACharacterComesWhole) {
  const auto tokenizer = std::make_shared<const Tokenizer>(small());
  StreamDecoder decoder(tokenizer);
  const std::string fox = "🦊";
  for (int i = 0; i < 3; ++i) EXPECT_EQ(decoder.push(3 + static_cast<unsigned char>(fox[i])), "");
  EXPECT_EQ(decoder.push(3 + static_cast<unsigned char>(fox[3])), fox);
  EXPECT_EQ(decoder.finish(), "");
}

template <class Change>
void expect_refused(const char* message, Change change) {
  Vocabulary vocabulary = small();
  change(vocabulary);
  try {
    const Tokenizer tokenizer(vocabulary);
    FAIL() << "accepted: " << message;
  } catch (const core::DataError& error) {
    EXPECT_NE(std::string(error.what()).find(message), std::string::npos) << error.what();
  }
}

TEST(Vocabulary, WhatDoesNotFitTogetherIsRefused) {
  expect_refused("is empty", [](Vocabulary& v) { v = {}; });
  expect_refused("roles", [](Vocabulary& v) { v.roles.pop_back(); });
  expect_refused("piece 260 of the vocabulary is empty",
                 [](Vocabulary& v) { v.pieces[260].clear(); });
  expect_refused("not valid UTF-8", [](Vocabulary& v) { v.pieces[260] = "\xFF"; });
  expect_refused("the end token id 999", [](Vocabulary& v) { v.eos = 999; });
  expect_refused("merge 0 names an id", [](Vocabulary& v) { v.merges[0].left = 5000; });
  expect_refused("merge 0 does not give", [](Vocabulary& v) { v.merges[0].result = 260; });
  expect_refused("255 byte tokens", [](Vocabulary& v) { v.roles[3] = Role::kText; });
  expect_refused("expected each of <0x00> to <0xFF>",
                 [](Vocabulary& v) { v.pieces[3] = "<0x01>"; });
  expect_refused("expected each of <0x00> to <0xFF>", [](Vocabulary& v) { v.pieces[3] = "odd"; });
  expect_refused("scores", [](Vocabulary& v) { v.algorithm = Algorithm::kUnigram; });
}

}  // namespace
}  // namespace omnima::text

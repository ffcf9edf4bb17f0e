// Masked tokens and cut spans: rates, what stays, what can be put together again, and refusals.
#include "omnima/data/objective.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "omnima/core/error.h"

namespace omnima::data {
namespace {

using Ids = std::vector<std::int64_t>;

ObjectiveOptions masked() {
  ObjectiveOptions options;
  options.name = "masked";
  options.vocab_size = 1000;
  options.mask_id = 4;
  options.kept = {0, 1, 2, 3, 4};
  return options;
}

ObjectiveOptions span(std::int64_t sentinels = 64) {
  ObjectiveOptions options;
  options.name = "span";
  for (std::int64_t i = 0; i < sentinels; ++i) options.sentinels.push_back(5000 + i);
  return options;
}

Ids tokens_from(std::int64_t first, std::int64_t count) {
  Ids tokens(static_cast<std::size_t>(count));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

TEST(Objective, FifteenPercentAreMaskedOfThemEightyTenTen) {
  const ObjectiveOptions options = masked();
  std::int64_t chosen = 0, mask = 0, same = 0, drawn = 0;
  for (std::uint64_t key = 0; key < 200; ++key) {
    const Ids tokens = tokens_from(100, 200);
    Ids ids(200, -1), labels = tokens;
    mask_tokens(options, key, ids, labels);
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (labels[i] == -100) {
        EXPECT_EQ(ids[i], tokens[i]);
        continue;
      }
      EXPECT_EQ(labels[i], tokens[i]);
      ++chosen;
      mask += ids[i] == options.mask_id;
      same += ids[i] == tokens[i];
      drawn += ids[i] != options.mask_id && ids[i] != tokens[i];
    }
  }
  EXPECT_EQ(chosen, 200 * 30);
  EXPECT_NEAR(mask / 6000.0, 0.8, 0.02);
  EXPECT_NEAR(same / 6000.0, 0.1, 0.015);
  EXPECT_NEAR(drawn / 6000.0, 0.1, 0.015);
}

TEST(Objective, SpecialTokensAndPaddingAreNeverMasked) {
  ObjectiveOptions options = masked();
  options.rate = 0.9;
  Ids labels{1, 50, 2, 60, -100, -100}, ids(6, 2);
  mask_tokens(options, 3, ids, labels);
  EXPECT_EQ(labels, (Ids{-100, 50, -100, 60, -100, -100}));
  EXPECT_EQ(ids[0], 1);
  EXPECT_EQ(ids[2], 2);
  EXPECT_EQ(ids[4], 2);
  Ids none{1, 2}, kept(2, 0);
  mask_tokens(options, 3, kept, none);
  EXPECT_EQ(none, Ids(2, -100));
  EXPECT_EQ(kept, (Ids{1, 2}));
}

TEST(Objective, ARowOfSpansHoldsTheWholeText) {
  const ObjectiveOptions options = span();
  std::int64_t cut = 0, spans = 0;
  for (std::uint64_t key = 0; key < 100; ++key) {
    const std::int64_t count = tokens_in_row(128, options);
    const Ids tokens = tokens_from(10, count);
    Ids ids(128, 7), labels(128, -100);
    cut_spans(options, key, tokens, 1, 2, ids, labels);
    const auto separator = std::ranges::find(ids, 1) - ids.begin();
    const SpanCount counted = count_spans(count, options);
    ASSERT_EQ(separator, count - counted.cut + counted.spans);
    EXPECT_EQ(labels[separator - 1], -100);
    // The spans by their sentinels, then back into their places.
    std::vector<Ids> cut_out;
    std::int64_t at = separator;
    for (; labels[at] != 2; ++at) {
      if (labels[at] >= 5000) {
        EXPECT_EQ(labels[at], 5000 + static_cast<std::int64_t>(cut_out.size()));
        cut_out.emplace_back();
      } else {
        cut_out.back().push_back(labels[at]);
      }
      EXPECT_EQ(ids[at + 1], labels[at]);  // an input is the label before it
    }
    for (++at; at < 128; ++at) EXPECT_EQ(labels[at], -100);
    Ids whole;
    for (std::int64_t i = 0; i < separator; ++i) {
      if (ids[i] < 5000) {
        whole.push_back(ids[i]);
      } else {
        const Ids& part = cut_out.at(static_cast<std::size_t>(ids[i] - 5000));
        EXPECT_FALSE(part.empty());
        whole.insert(whole.end(), part.begin(), part.end());
        cut += static_cast<std::int64_t>(part.size());
        ++spans;
      }
    }
    EXPECT_EQ(whole, tokens);
  }
  EXPECT_NEAR(static_cast<double>(cut) / static_cast<double>(spans), 3.0, 0.2);
  EXPECT_NEAR(static_cast<double>(cut) / (100.0 * tokens_in_row(128, options)), 0.15, 0.005);
}

TEST(Objective, RowsAreFilledToTheLastPlaceOrTwo) {
  for (std::int64_t time : {8, 31, 64, 512, 1000}) {
    const ObjectiveOptions options = span(200);
    const std::int64_t tokens = tokens_in_row(time, options);
    const std::int64_t used = tokens + 2 * count_spans(tokens, options).spans + 1;
    EXPECT_LE(used, time);
    EXPECT_GE(used, time - 3);
  }
  EXPECT_EQ(tokens_in_row(4, span()), 0);
}

TEST(Objective, AKeyDecidesAll) {
  const Ids tokens = tokens_from(10, 40);
  const auto row = [&](std::uint64_t key) {
    Ids ids(64, 0), labels(64, -100);
    cut_spans(span(), key, tokens, 1, 2, ids, labels);
    return ids;
  };
  EXPECT_EQ(row(3), row(3));
  EXPECT_NE(row(3), row(4));
  Ids ids(8, 0), labels(8, -100);
  cut_spans(span(), 1, tokens_from(10, 1), 1, 2, ids, labels);  // no span can be cut out of it
  EXPECT_EQ(ids, Ids(8, 0));
  EXPECT_EQ(labels, Ids(8, -100));
}

template <class F>
std::string refusal(F run) {
  try {
    run();
  } catch (const core::ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(Objective, WhatCannotBeMadeIsRefused) {
  const auto says = [](const ObjectiveOptions& options, std::int64_t time, const char* text) {
    const std::string said = refusal([&] { options.check(time); });
    EXPECT_NE(said.find(text), std::string::npos) << said;
  };
  ObjectiveOptions options = masked();
  EXPECT_EQ(refusal([&] { options.check(8); }), "");
  options.mask_id = -1;
  says(options, 8, "needs a mask token");
  options = masked();
  options.rate = 0.95;
  says(options, 8, "corruption_rate");
  options.name = "gaps";
  says(options, 8, "objective");
  options = span();
  options.span_length = 0.5;
  says(options, 64, "span_length");
  says(span(), 4, "too short");
  says(span(2), 512, "there are 2 sentinels");
}

}  // namespace
}  // namespace omnima::data

// Sampling against plain arithmetic, and the options that describe it.
#include "omnima/generate/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>

#include "omnima/core/error.h"

namespace omnima::generate {
namespace {

using Logits = std::vector<float>;
constexpr float kDropped = -std::numeric_limits<float>::infinity();

Logits processed(const GenerateOptions& options, Logits logits,
                 const std::vector<std::int64_t>& seen = {}) {
  Sampler sampler(options, 0, static_cast<std::int64_t>(logits.size()));
  for (const std::int64_t id : seen) sampler.saw(id);
  sampler.process(logits);
  return logits;
}

Logits random_logits(std::uint64_t seed, std::size_t count) {
  Logits logits(count);
  for (std::size_t i = 0; i < count; ++i) {
    logits[i] = static_cast<float>(uniform(seed, i) * 12 - 6);
  }
  return logits;
}

std::vector<double> probabilities(const Logits& logits) {
  const double most = *std::max_element(logits.begin(), logits.end());
  std::vector<double> shares;
  for (const float logit : logits) shares.push_back(std::exp(logit - most));
  const double total = std::accumulate(shares.begin(), shares.end(), 0.0);
  for (double& share : shares) share /= total;
  return shares;
}

// Indices, the likeliest first.
std::vector<std::size_t> order(const Logits& logits) {
  std::vector<std::size_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::sort(ids.begin(), ids.end(),
            [&](std::size_t a, std::size_t b) { return logits[a] > logits[b]; });
  return ids;
}

std::size_t kept(const Logits& logits) {
  return static_cast<std::size_t>(
      std::count_if(logits.begin(), logits.end(), [](float x) { return x != kDropped; }));
}

TEST(Uniform, IsAPureFunctionBetweenZeroAndOneWithTheRightMoments) {
  EXPECT_EQ(uniform(3, 5), uniform(3, 5));
  EXPECT_NE(uniform(3, 5), uniform(5, 3));
  EXPECT_NE(uniform(3, 5), uniform(3, 6));
  double sum = 0, squares = 0;
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i) {
    const double x = uniform(i % 20, i / 20);
    ASSERT_TRUE(x >= 0 && x < 1);
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / kDraws, 0.5, 0.01);
  EXPECT_NEAR(squares / kDraws, 1.0 / 3, 0.01);
}

TEST(Sampler, TemperatureZeroTakesTheLikeliestAndTheFirstOfEquals) {
  const GenerateOptions options;
  Sampler sampler(options, 1, 4);
  Logits logits{0.5f, 2, -1, 2};
  EXPECT_EQ(sampler.next(logits), 1);
}

TEST(Sampler, TemperatureDivides) {
  GenerateOptions options;
  options.temperature = 0.5;
  EXPECT_EQ(processed(options, {1, -2, 0.25f}), (Logits{2, -4, 0.5f}));
  options.temperature = 1;
  EXPECT_EQ(processed(options, {1, -2, 0.25f}), (Logits{1, -2, 0.25f}));
}

TEST(Sampler, RepetitionPenaltyDividesWhatIsPositiveAndMultipliesWhatIsNegative) {
  GenerateOptions options;
  options.repetition_penalty = 2;
  EXPECT_EQ(processed(options, {4, -4, 3, -3}, {0, 1, 0}), (Logits{2, -8, 3, -3}));
  Sampler sampler(options, 0, 2);
  Logits logits{4, 3};
  EXPECT_EQ(sampler.next(logits), 0);  // and remembers that it wrote it
  logits = {4, 3};
  EXPECT_EQ(sampler.next(logits), 1);
}

TEST(Sampler, OtherPenaltiesCountWhatWasWrittenNotWhatWasRead) {
  GenerateOptions options;
  options.frequency_penalty = 0.5;
  options.presence_penalty = 0.25;
  Sampler sampler(options, 0, 3);
  sampler.saw(1);
  sampler.wrote(0);
  sampler.wrote(0);
  Logits logits{4, 3, -1};
  sampler.process(logits);
  EXPECT_EQ(logits, (Logits{2.75f, 3, -1}));
  logits = {4, 3, -1};
  EXPECT_EQ(sampler.next(logits), 1);
  logits = {4, 3.5f, -1};
  sampler.process(logits);
  EXPECT_EQ(logits, (Logits{2.75f, 2.75f, -1}));
  Sampler other(options, 0, 3);
  other.follow(sampler);
  logits = {4, 3.5f, -1};
  other.process(logits);
  EXPECT_EQ(logits, (Logits{2.75f, 2.75f, -1}));
}

TEST(Sampler, BiasesComeBeforeThePenaltyOfRepetition) {
  GenerateOptions options;
  options.logit_bias = {{0, -3}, {2, 10}, {5, 1}};
  options.repetition_penalty = 2;
  EXPECT_EQ(processed(options, {2, 3, -4}, {0, 1}), (Logits{-2, 1.5f, 6}));
}

TEST(Sampler, TopKKeepsTheLikeliestAndTheirEquals) {
  GenerateOptions options;
  options.temperature = 1;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const Logits logits = random_logits(seed, 100);
    const auto ids = order(logits);
    for (const std::size_t k : {1u, 2u, 50u, 99u, 100u, 1000u}) {
      options.top_k = static_cast<std::int64_t>(k);
      const Logits result = processed(options, logits);
      for (std::size_t i = 0; i < ids.size(); ++i) {
        ASSERT_EQ(result[ids[i]], i < k ? logits[ids[i]] : kDropped) << "k " << k << ", rank " << i;
      }
    }
  }
  options.top_k = 2;
  EXPECT_EQ(processed(options, {1, 5, 3, 3, 2}), (Logits{kDropped, 5, 3, 3, kDropped}));
}

TEST(Sampler, TopPKeepsTheFewestThatHoldTheShare) {
  GenerateOptions options;
  options.temperature = 1;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const Logits logits = random_logits(seed, 80);
    const auto ids = order(logits);
    const auto shares = probabilities(logits);
    for (const double p : {1e-9, 0.31, 0.77, 0.9, 0.999}) {
      options.top_p = p;
      const Logits result = processed(options, logits);
      double above = 0;
      for (std::size_t i = 0; i < ids.size(); ++i) {
        ASSERT_EQ(result[ids[i]], i == 0 || above < p ? logits[ids[i]] : kDropped) << p << ' ' << i;
        above += shares[ids[i]];
      }
    }
  }
  options.top_p = 0;
  EXPECT_EQ(kept(processed(options, {1, 2, 3})), 1u);
}

TEST(Sampler, TopPDividesEqualLogitsAndKeepsTheirNumber) {
  GenerateOptions options;
  options.temperature = 1;
  options.top_p = 0.25;
  EXPECT_EQ(kept(processed(options, Logits(1000, 2.0f))), 250u);
}

TEST(Sampler, ATinyTemperatureTakesTheLikeliest) {
  GenerateOptions options;
  options.temperature = 1e-42;
  options.top_p = 0.9;
  Sampler sampler(options, 3, 4);
  Logits logits{-2, 0.5f, -1, 0.25f};
  EXPECT_EQ(sampler.next(logits), 1);
}

TEST(Sampler, MinPDropsWhatIsBelowAShareOfTheLikeliest) {
  GenerateOptions options;
  options.temperature = 1;
  options.min_p = 0.1;
  const Logits logits = random_logits(7, 100);
  const auto shares = probabilities(logits);
  const double least = 0.1 * *std::max_element(shares.begin(), shares.end());
  const Logits result = processed(options, logits);
  for (std::size_t i = 0; i < logits.size(); ++i) {
    ASSERT_EQ(result[i], shares[i] < least ? kDropped : logits[i]);
  }
  options.min_p = 1;
  EXPECT_EQ(kept(processed(options, logits)), 1u);
}

TEST(Sampler, FiltersWorkTogetherOnWhatTheOneBeforeLeft) {
  GenerateOptions options;
  options.temperature = 1;
  options.top_k = 3;
  options.top_p = 0.9;  // of the three: 0.665, 0.245, 0.090
  const Logits result = processed(options, {3, 2, 1, 0.9f, -1});
  EXPECT_EQ(result, (Logits{3, 2, kDropped, kDropped, kDropped}));
}

TEST(Sampler, DrawsWithTheProbabilitiesThatAreLeft) {
  GenerateOptions options;
  options.temperature = 0.7;
  options.top_k = 4;
  const Logits logits{1, 0, -0.5f, 2, 0.25f, -3};
  const auto shares = probabilities(processed(options, logits));
  constexpr int kDraws = 40000;
  std::vector<int> counts(logits.size());
  Sampler sampler(options, 11, 6);
  for (int i = 0; i < kDraws; ++i) {
    Logits scratch = logits;
    ++counts[static_cast<std::size_t>(sampler.next(scratch))];
  }
  for (std::size_t i = 0; i < shares.size(); ++i) {
    const double deviation = std::sqrt(shares[i] * (1 - shares[i]) / kDraws);
    EXPECT_NEAR(counts[i] / static_cast<double>(kDraws), shares[i], 5 * deviation + 1e-12) << i;
  }
}

TEST(Sampler, TheSeedDecidesTheDraws) {
  GenerateOptions options;
  options.temperature = 1;
  const auto draws = [&](std::uint64_t seed) {
    Sampler sampler(options, seed, 50);
    std::vector<std::int64_t> ids;
    for (std::uint64_t step = 0; step < 30; ++step) {
      Logits logits = random_logits(step, 50);
      ids.push_back(sampler.next(logits));
    }
    return ids;
  };
  EXPECT_EQ(draws(4), draws(4));
  EXPECT_NE(draws(4), draws(5));
}

TEST(Sampler, RefusesLogitsThatAreNotFiniteAndNamesTheToken) {
  const GenerateOptions options;
  for (const float bad : {std::nanf(""), -kDropped, kDropped}) {
    Sampler sampler(options, 0, 3);
    Logits logits{0, 1, 2};
    sampler.next(logits);
    logits = {0, 1, bad};
    try {
      sampler.next(logits);
      FAIL() << "no error for " << bad;
    } catch (const core::NonFiniteError& error) {
      const std::string what = error.what();
      EXPECT_NE(what.find("token 2"), std::string::npos) << what;
      EXPECT_NE(what.find("new token 2"), std::string::npos) << what;
    }
  }
}

TEST(GenerateOptions, ComeFromNamedValues) {
  const auto options = GenerateOptions::from_values(
      {{"temperature", std::int64_t{1}}, {"top_k", std::int64_t{7}}, {"top_p", 0.5}});
  EXPECT_EQ(options.temperature, 1.0);
  EXPECT_EQ(options.top_k, 7);
  EXPECT_EQ(options.top_p, 0.5);
  EXPECT_EQ(options.max_new_tokens, 128);
  for (const auto& field : GenerateOptions::fields()) {
    EXPECT_NO_THROW(core::check_field(field, field.default_value)) << field.name;
  }
}

TEST(GenerateOptions, RefuseUnknownNamesWrongTypesAndValuesOutOfBounds) {
  const auto refused = [](const std::string& name, const core::FieldValue& value) -> std::string {
    try {
      GenerateOptions::from_values({{name, value}});
    } catch (const core::ConfigError& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_NE(refused("temprature", 1.0).find("nearest is \"temperature\""), std::string::npos);
  EXPECT_NE(refused("top_p", 1.5).find("top_p"), std::string::npos);
  EXPECT_NE(refused("top_k", std::int64_t{-1}).find("top_k"), std::string::npos);
  EXPECT_NE(refused("max_new_tokens", std::int64_t{0}).find("max_new_tokens"), std::string::npos);
  EXPECT_NE(refused("top_k", 2.5).find("top_k"), std::string::npos);
  EXPECT_NE(refused("repetition_penalty", 0.0).find("repetition_penalty"), std::string::npos);
}

}  // namespace
}  // namespace omnima::generate

// Texts that are kept from call to call: which is found, what is forgotten, and that a prompt that
// goes on with one is read to the same numbers.
#include "omnima/generate/prompt_cache.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "../models/families.h"
#include "omnima/core/error.h"
#include "omnima/generate/engine.h"
#include "omnima/generate/fingerprint.h"
#include "omnima/generate/runner.h"
#include "omnima/models/rotary.h"
#include "tiny_models.h"

namespace omnima::generate {
namespace {

constexpr std::int64_t kVocab = 37, kContext = 300;

struct OfBytes final : SequenceState {
  explicit OfBytes(std::int64_t bytes) : SequenceState(100), size(bytes) {}
  std::int64_t bytes() const override { return size; }
  std::int64_t size;
};

void keep(PromptCache& cache, std::uint64_t weights, const Ids& ids, std::int64_t bytes = 10) {
  cache.keep(weights, ids, std::make_unique<OfBytes>(bytes));
}

TEST(PromptCache, FindsTheTextThatSharesMostOfTheSameWeights) {
  PromptCache cache(100);
  keep(cache, 1, {5, 6, 7});
  keep(cache, 1, {5, 6, 8, 9});
  keep(cache, 2, {5, 6, 8, 9, 10});
  const auto tokens = [&](std::uint64_t weights, const Ids& ids) {
    return cache.find(weights, ids).tokens;
  };
  EXPECT_EQ(tokens(1, {5, 6, 8, 9, 10}), 4);
  EXPECT_EQ(tokens(2, {5, 6, 8, 9, 10}), 5);
  EXPECT_EQ(tokens(1, {5, 6}), 2);
  EXPECT_EQ(tokens(1, {5, 9}), 1);
  EXPECT_EQ(tokens(1, {6, 5}), 0);
  EXPECT_EQ(tokens(3, {5, 6}), 0);
  EXPECT_EQ(tokens(1, {}), 0);
  EXPECT_EQ(cache.find(1, Ids{6}).state, nullptr);
}

TEST(PromptCache, ForgetsWhatWasNotUsedForLongestAndWhatALaterTextHolds) {
  PromptCache cache(30);
  keep(cache, 1, {1, 1});
  keep(cache, 1, {2, 2});
  keep(cache, 1, {3, 3});
  EXPECT_EQ(cache.find(1, Ids{1}).tokens, 1);  // used again
  keep(cache, 1, {4, 4});
  EXPECT_EQ(cache.find(1, Ids{2}).tokens, 0);
  EXPECT_EQ(cache.find(1, Ids{1}).tokens, 1);
  EXPECT_EQ(cache.texts(), 3);
  keep(cache, 1, {4, 4, 4});
  EXPECT_EQ(cache.texts(), 3);
  EXPECT_EQ(cache.bytes(), 30);
  const auto held = cache.find(1, Ids{4, 4, 4});
  keep(cache, 1, {9}, 31);  // more than there is room for
  EXPECT_EQ(cache.find(1, Ids{9}).tokens, 0);
  cache.clear();
  EXPECT_EQ(cache.bytes(), 0);
  EXPECT_EQ(held.state->bytes(), 10);
  EXPECT_THROW(PromptCache(0), core::ConfigError);
}

std::vector<float> logits_after(Runner& runner, SequenceState& state, const Ids& ids,
                                std::int64_t from) {
  const auto rest = std::span(ids).subspan(static_cast<std::size_t>(from));
  runner.prefill(state, rest);
  std::vector<float> logits(rest.size() * kVocab);
  runner.logits(0, std::ssize(rest), logits.data());
  return logits;
}

double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double apart = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    apart += std::pow(static_cast<double>(a[i]) - b[i], 2);
    size += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(apart / size);
}

// Ways of attention.
std::vector<models::Changes> ways() {
  using S = std::string;
  return {{},
          {{"sliding_window", std::int64_t{71}}, {"num_key_value_heads", std::int64_t{1}}},
          {{"attention_softcap", 2.0}, {"positions", S("alibi")}},
          {{"positions", S("relative")}},
          {{"blocksparse_block_size", std::int64_t{20}},
           {"blocksparse_num_local_blocks", std::int64_t{2}},
           {"blocksparse_vert_stride", std::int64_t{3}}}};
}

struct Numbers {
  bool halves;
  kernels::CacheFormat format;
  double bound;  // of the rounding: a single token's products are exact, those of tiles rounded
};

void check_pieces(const models::Decoder& model, const Weights& weights, const Numbers& numbers) {
  const Ids ids = random_ids(7, 150, kVocab);
  const RunnerOptions options{kContext, 1, numbers.halves, numbers.format};
  Runner runner(model.config(), weights, options);
  const auto whole = runner.begin(kContext);
  const auto wanted = logits_after(runner, *whole, ids, 0);
  for (const std::int64_t known : {1, 70, 149}) {
    const auto state = runner.begin_as(*whole, known, kContext - 1);
    ASSERT_EQ(state->position(), known);
    const std::vector<float> tail(wanted.begin() + known * kVocab, wanted.end());
    EXPECT_LT(distance(logits_after(runner, *state, ids, known), tail), numbers.bound) << known;
  }
}

// Pieces of many tokens go through tiles, of few through single products.
TEST(Runner, APromptInPiecesHasTheNumbersOfThePromptAsAWhole) {
  using enum kernels::CacheFormat;
  const int before = at::get_num_threads();
  for (const auto& changes : ways()) {
    const models::Decoder model(tiny_config(changes, kVocab, kContext), 3);
    const Weights weights(model.config(), parameters_of(model));
    for (const int threads : {1, 2}) {
      at::set_num_threads(threads);
      check_pieces(model, weights, {false, kFloat32, 1e-5});
    }
    check_pieces(model, weights, {true, kFloat32, 2e-2});
    check_pieces(model, weights, {false, kBf16, 2e-2});
    check_pieces(model, weights, {false, kInt8, 8e-2});
  }
  at::set_num_threads(before);
}

struct Talk {
  explicit Talk(const models::Changes& changes = {})
      : model(tiny_config(changes, kVocab, kContext), 3),
        engine(model.config(), parameters_of(model)) {}

  std::vector<Written> write(const std::vector<Ids>& prompts, PromptCache* cache,
                             GenerateOptions options = {}, const Engine* draft = nullptr) const {
    options.max_new_tokens = 12;
    options.seeds.assign(prompts.size(), 5);
    return engine.generate(prompts, options, {}, draft, {}, cache);
  }

  models::Decoder model;
  Engine engine;
};

TEST(PromptCache, ATalkIsTheSameWithItInEveryFamily) {
  auto shapes = models::families();
  for (const auto& changes : ways()) shapes.push_back(changes);
  std::int64_t guesses = 0;
  for (const auto& changes : shapes) {
    const Talk talk(changes);
    GenerateOptions options;
    options.speculative_tokens = guesses = 4 - guesses;
    PromptCache cache(1 << 24);
    Ids history = random_ids(3, 40, kVocab);
    for (std::uint64_t turn = 0; turn < 3; ++turn) {
      const auto plain = talk.write({history}, nullptr, options)[0];
      const auto kept = talk.write({history}, &cache, options)[0];
      EXPECT_EQ(kept.ids, plain.ids);
      EXPECT_EQ(plain.cached, 0);
      // All but what is new: the last token of an answer and the question.
      const bool follows = models::rotary_follows_length(talk.model.config(), kContext);
      if (turn > 0 && !follows) {
        EXPECT_EQ(kept.cached, std::ssize(history) - 31) << turn;
      }
      history.insert(history.end(), plain.ids.begin(), plain.ids.end());
      const Ids question = random_ids(10 + turn, 30, kVocab);
      history.insert(history.end(), question.begin(), question.end());
    }
    EXPECT_EQ(cache.texts(), 1);
  }
}

TEST(PromptCache, ThePromptsOfACallShareTheirBeginning) {
  const Talk talk;
  std::vector<Ids> prompts;
  for (std::uint64_t i = 0; i < 5; ++i) {
    Ids ids = random_ids(3, 100, kVocab);
    const Ids own = random_ids(20 + i, 5, kVocab);
    ids.insert(ids.end(), own.begin(), own.end());
    prompts.push_back(ids);
  }
  PromptCache cache(1 << 24);
  const auto plain = talk.write(prompts, nullptr), kept = talk.write(prompts, &cache);
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    EXPECT_EQ(kept[i].ids, plain[i].ids);
    EXPECT_GE(kept[i].cached, i == 0 ? 0 : 100);
  }
  EXPECT_EQ(talk.write({prompts[2]}, &cache)[0].cached, 104);  // all but the last token
}

TEST(PromptCache, OtherWeightsFormatsAndPrecisionsAreOtherTexts) {
  Talk talk;
  PromptCache cache(1 << 24);
  const Ids ids = random_ids(3, 40, kVocab);
  talk.write({ids}, &cache);
  EXPECT_EQ(talk.write({ids}, &cache)[0].cached, 39);
  GenerateOptions options;
  options.cache_precision = "bf16";
  EXPECT_EQ(talk.write({ids}, &cache, options)[0].cached, 0);
  options.prompt_precision = "bf16";
  EXPECT_EQ(talk.write({ids}, &cache, options)[0].cached, 0);
  EXPECT_EQ(Talk({{"attention_softcap", 2.0}}).write({ids}, &cache)[0].cached, 0);
  EXPECT_EQ(Talk().write({ids}, &cache)[0].cached, 39);  // another model of the same numbers
  // A step of training writes without torch's knowledge.
  auto named = parameters_of(talk.model);
  float* weights = named.begin()->second.mutable_data_ptr<float>();
  for (std::int64_t i = 0; i < named.begin()->second.numel(); ++i) weights[i] += 1e-3f;
  EXPECT_EQ(talk.write({ids}, &cache)[0].cached, 0);
}

TEST(PromptCache, WhereTablesFollowTheLengthNothingIsTaken) {
  const Talk talk({{"rope_scaling", std::string("dynamic")},
                   {"rope_factor", 2.0},
                   {"rope_original_context", std::int64_t{64}}});
  PromptCache cache(1 << 24);
  Ids ids = random_ids(3, 40, kVocab);
  talk.write({ids}, &cache);
  EXPECT_EQ(talk.write({ids}, &cache)[0].cached, 39);  // within the length of the training
  const Ids more = random_ids(4, 60, kVocab);
  ids.insert(ids.end(), more.begin(), more.end());
  const auto kept = talk.write({ids}, &cache)[0];
  EXPECT_EQ(kept.cached, 0);
  EXPECT_EQ(kept.ids, talk.write({ids}, nullptr)[0].ids);
}

TEST(Fingerprint, ChangesWithTypeShapeAndNumbers) {
  const auto of = [](const at::Tensor& tensor) {
    Fingerprint found;
    found.add(tensor);
    return found.value();
  };
  const at::Tensor one = at::ones({7, 9});
  EXPECT_EQ(of(one), of(at::ones({7, 9})));
  EXPECT_NE(of(one), of(at::ones({9, 7})));
  EXPECT_NE(of(one), of(at::ones({7, 9}, at::kHalf)));
  EXPECT_NE(of(one), of(at::zeros({7, 9})));
  EXPECT_NE(of(at::Tensor()), of(at::ones({0})));
  EXPECT_NE(of(at::ones({1})), of(at::zeros({1})));
  at::Tensor changed = at::ones({1000, 1000});
  const auto before = of(changed);
  changed[500][500] = 2;  // torch counts it
  EXPECT_NE(of(changed), before);
}

}  // namespace
}  // namespace omnima::generate

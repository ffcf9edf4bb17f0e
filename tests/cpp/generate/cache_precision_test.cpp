// Keys and values in bfloat16 and in 8 bits: near the exact numbers, and the same numbers however
// the tokens come.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/norm.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "../models/families.h"
#include "omnima/core/error.h"
#include "omnima/generate/engine.h"
#include "omnima/generate/runner.h"
#include "omnima/generate/sampler.h"
#include "omnima/models/decoder.h"
#include "tiny_models.h"

namespace omnima::generate {
namespace {

constexpr std::int64_t kVocab = 23;

models::Decoder model_of(const models::Changes& values, std::int64_t context = 48) {
  return models::Decoder(tiny_config(values, kVocab, context), 3);
}

Ids random_ids(std::uint64_t seed, std::int64_t count) {
  return generate::random_ids(seed, count, kVocab);
}

// How far a rounding may move a head's vector, as a share of its length: in bfloat16 2^-8 of each
// number; in 8 bits half a step of the largest, which is at most the length, in each.
double rounding(const std::string& precision, std::int64_t head_dim) {
  return precision == "bf16" ? 0x1p-8 : std::sqrt(static_cast<double>(head_dim)) / 254;
}

// The logits' share of change when every token's keys and values are rounded. A layer's attention
// changes by the rounding of its values, and by that of its scores, which are small here; without
// the model's norms a layer's output would change by no more than its attention does.
void expect_near(const at::Tensor& rounded, const at::Tensor& exact,
                 const models::DecoderConfig& config, const std::string& precision) {
  const double share = ((rounded - exact).norm() / exact.norm()).item<double>();
  const double layers = static_cast<double>(config.num_hidden_layers);
  EXPECT_GT(share, 0.0) << precision;
  EXPECT_LT(share, 2 * layers * rounding(precision, config.head_dim)) << precision;
}

TEST(CachePrecision, LogitsAreNearTheExactOnesInEveryFamily) {
  for (const auto& changes : models::families()) {
    const auto model = model_of(changes);
    const Engine engine(model.config(), parameters_of(model));
    const Ids ids = random_ids(7, 48);
    const at::Tensor exact = engine.logits(ids, true);
    for (const std::string precision : {"bf16", "int8"}) {
      expect_near(engine.logits(ids, true, false, precision), exact, model.config(), precision);
    }
  }
}

TEST(CachePrecision, LongTextsAreNearAndTheNumberOfThreadsChangesNothing) {
  using S = std::string;
  const std::vector<models::Changes> families{
      {{"num_key_value_heads", std::int64_t{2}}},
      {{"sliding_window", std::int64_t{523}}, {"num_key_value_heads", std::int64_t{1}}},
      {{"attention_softcap", 2.0}, {"positions", S("alibi")}},
      {{"blocksparse_block_size", std::int64_t{100}},
       {"blocksparse_num_local_blocks", std::int64_t{2}},
       {"blocksparse_vert_stride", std::int64_t{3}}}};
  const int before = at::get_num_threads();
  for (const auto& changes : families) {
    const auto model = model_of(changes, 700);
    const Engine engine(model.config(), parameters_of(model));
    const Ids ids = random_ids(7, 700);  // more than one stretch
    at::set_num_threads(1);
    const at::Tensor exact = engine.logits(ids, true);
    for (const std::string precision : {"bf16", "int8"}) {
      at::set_num_threads(1);
      const at::Tensor one = engine.logits(ids, true, false, precision);
      expect_near(one, exact, model.config(), precision);
      at::set_num_threads(2);
      EXPECT_TRUE(at::equal(engine.logits(ids, true, false, precision), one)) << precision;
    }
  }
  at::set_num_threads(before);
}

TEST(CachePrecision, APromptOfTilesReadsItsOwnTokensExactly) {
  const auto model = model_of({});
  const Engine engine(model.config(), parameters_of(model));
  const Ids ids = random_ids(7, 40);
  EXPECT_TRUE(at::equal(engine.logits(ids, false, false, "int8"), engine.logits(ids, false)));
}

TEST(CachePrecision, RowsTogetherGiveTheLogitsOfRowsOneByOne) {
  for (const auto& changes : models::families()) {
    const auto model = model_of(changes);
    const Weights weights(model.config(), parameters_of(model));
    for (const auto format : {kernels::CacheFormat::kFloat32, kernels::CacheFormat::kBf16,
                              kernels::CacheFormat::kInt8}) {
      const Ids ids = random_ids(8, 30);
      Runner runner(model.config(), weights, {40, 1, false, format});
      const auto one = runner.begin(40), many = runner.begin(40);
      std::vector<float> wanted(ids.size() * kVocab), got(ids.size() * kVocab);
      SequenceState* const single[] = {one.get()};
      for (std::size_t i = 0; i < ids.size(); ++i) {
        runner.append(single, {&ids[i], 1});
        runner.logits(0, 1, &wanted[i * kVocab]);
      }
      // In parts of every size, each with wrong tokens behind it that are forgotten.
      for (std::size_t at = 0, size = 1; at < ids.size(); at += size, ++size) {
        size = std::min(size, ids.size() - at);
        Ids part(ids.begin() + static_cast<std::ptrdiff_t>(at),
                 ids.begin() + static_cast<std::ptrdiff_t>(at + size));
        part.insert(part.end(), 3, 1);
        const std::vector<SequenceState*> states(part.size(), many.get());
        runner.append(states, part);
        runner.logits(0, static_cast<std::int64_t>(size), &got[at * kVocab]);
        many->truncate(static_cast<std::int64_t>(at + size));
      }
      EXPECT_EQ(got, wanted);
    }
  }
}

TEST(CachePrecision, ATextIsTheSameAloneInABatchAndWithGuesses) {
  const auto small = model_of({{"num_hidden_layers", std::int64_t{1}}});
  const Engine draft(small.config(), parameters_of(small));
  for (const auto& changes : models::families()) {
    const auto model = model_of(changes);
    const Engine engine(model.config(), parameters_of(model));
    for (const std::string precision : {"bf16", "int8"}) {
      GenerateOptions options;
      options.max_new_tokens = 14;
      options.temperature = 0.9;
      options.cache_precision = precision;
      std::vector<Ids> prompts;
      for (std::uint64_t i = 0; i < 6; ++i) {
        prompts.push_back(random_ids(i, 1 + 7 * static_cast<std::int64_t>(i)));
        options.seeds.push_back(100 + i);
      }
      const auto together = engine.generate(prompts, options, {});
      GenerateOptions guessing = options;
      guessing.speculative_tokens = 5;
      const auto looked_up = engine.generate(prompts, guessing, {});
      const auto drafted = engine.generate(prompts, guessing, {}, &draft);
      for (std::size_t i = 0; i < prompts.size(); ++i) {
        GenerateOptions alone = options;
        alone.seeds = {options.seeds[i]};
        EXPECT_EQ(engine.generate({prompts[i]}, alone, {})[0].ids, together[i].ids) << precision;
        EXPECT_EQ(looked_up[i].ids, together[i].ids) << precision;
        EXPECT_EQ(drafted[i].ids, together[i].ids) << precision;
      }
    }
  }
}

TEST(CachePrecision, HeadsLieApartAndScalesBehindThem) {
  const auto config = model_of({{"num_key_value_heads", std::int64_t{2}}}).config();
  for (const auto format :
       {kernels::CacheFormat::kFloat32, kernels::CacheFormat::kBf16, kernels::CacheFormat::kInt8}) {
    DecodeState state(config, 19, format);
    const auto& table = kernels::cached_head_kernels();
    const std::vector<float> query(static_cast<std::size_t>(config.head_dim), 1.0f);
    float mark = 0;
    for (std::int64_t layer = 0; layer < 2; ++layer) {
      for (std::int64_t head = 0; head < 2; ++head) {
        ++mark;
        const std::vector<float> numbers(query.size(), mark);
        for (std::int64_t i = 0; i < 19; ++i) {
          table.write(state.head(layer, head, 0), i, numbers.data(), numbers.data());
        }
      }
    }
    mark = 0;
    for (std::int64_t layer = 0; layer < 2; ++layer) {
      for (std::int64_t head = 0; head < 2; ++head) {
        ++mark;
        std::vector<float> scores(19), weights(19, 1.0f), sums(16);
        const auto cached = state.head(layer, head, 0);
        table.scores(cached, 0, 19, query.data(), 1, scores.data(), 19);
        table.add_values(cached, 0, 19, weights.data(), 19, 1, sums.data());
        const float score = mark * static_cast<float>(config.head_dim);
        for (const float each : scores) EXPECT_NEAR(each, score, 1e-5f * score);
        EXPECT_NEAR(sums[0], 19 * mark, 1e-4f * mark);
        EXPECT_NEAR(sums[static_cast<std::size_t>(config.head_dim) - 1], 19 * mark, 1e-4f * mark);
      }
    }
  }
}

TEST(CachePrecision, AnUnknownOneIsNamed) {
  try {
    cache_format_named("fp8");
    FAIL();
  } catch (const core::ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("cache_precision is \"fp8\""), std::string::npos);
  }
}

}  // namespace
}  // namespace omnima::generate

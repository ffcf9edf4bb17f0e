// The engine against the decoder it runs: the same numbers, in any batch, and how sequences end.
#include "omnima/generate/engine.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/norm.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <stdexcept>

#include "../models/families.h"
#include "omnima/core/error.h"
#include "omnima/generate/sampler.h"
#include "omnima/kernels/cpu/gemv.h"
#include "omnima/models/decoder.h"
#include "omnima/quant/convert.h"
#include "tiny_models.h"

namespace omnima::generate {
namespace {

using models::Changes;
using models::families;
constexpr std::int64_t kVocab = 61, kContext = 48;

models::DecoderConfig tiny(const Changes& changes = {}) {
  return tiny_config(changes, kVocab, kContext);
}

Ids random_ids(std::uint64_t seed, std::int64_t count) {
  return generate::random_ids(seed, count, kVocab);
}

struct Tiny {
  explicit Tiny(const Changes& changes = {})
      : model(tiny(changes), 3), engine(model.config(), parameters_of(model)) {}

  std::vector<Written> write(const std::vector<Ids>& prompts, GenerateOptions options,
                             const Hooks& hooks = {}) const {
    if (options.seeds.empty()) {
      for (std::size_t i = 0; i < prompts.size(); ++i) options.seeds.push_back(100 + i);
    }
    return engine.generate(prompts, options, hooks);
  }

  models::Decoder model;
  Engine engine;
};

std::string error_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const core::ConfigError& error) {
    return error.what();
  }
  return "no error";
}

void expect_says(const std::string& error, const std::vector<std::string>& parts) {
  for (const auto& part : parts) {
    EXPECT_NE(error.find(part), std::string::npos) << error << "\ndoes not say: " << part;
  }
}

// The largest difference between the decoder's logits and the engine's.
float most_apart(Tiny tiny, std::int64_t count, bool stepwise) {
  const Ids ids = random_ids(7, count);
  const at::Tensor wanted =
      tiny.model.logits(at::tensor(ids, at::kLong).reshape({1, count})).detach()[0];
  const at::Tensor got = tiny.engine.logits(ids, stepwise);
  EXPECT_EQ(got.sizes(), wanted.sizes());
  return (got - wanted).abs().max().item<float>();
}

TEST(Engine, LogitsAreTheDecodersInOnePassAndTokenByToken) {
  for (const auto& changes : families()) {
    for (const std::int64_t count : {std::int64_t{1}, std::int64_t{5}, kContext}) {
      for (const bool stepwise : {false, true}) {
        EXPECT_LT(most_apart(Tiny(changes), count, stepwise), 1e-4f) << count << ' ' << stepwise;
      }
    }
  }
}

// A model's matrices as a file stores them, and the same numbers in float32.
struct Stored {
  Parameters bytes, floats;
  Formats formats;

  Stored(const models::Decoder& model, const std::string& name) {
    const quant::Format& format = quant::format_named(name);
    for (const auto& [parameter, tensor] : model.named_parameters()) {
      bytes[parameter] = floats[parameter] = tensor;
      if (tensor.dim() != 2 || tensor.size(1) % format.numbers != 0) continue;
      bytes[parameter] = quant::quantized(format, tensor);
      floats[parameter] =
          quant::dequantized(format, bytes[parameter].const_data_ptr(), tensor.sizes());
      formats[parameter] = name;
    }
  }
};

TEST(Engine, StoredWeightsGiveTheLogitsOfTheirNumbers) {
  for (const auto& changes : families()) {
    const models::Decoder model(tiny(changes), 3);
    for (const char* format : {"q8_0", "q4_0", "bf16", "f32"}) {
      const Stored stored(model, format);
      const Engine exact(model.config(), stored.floats);
      const Engine engine(model.config(), stored.bytes, stored.formats);
      const Ids ids = random_ids(9, kContext);
      EXPECT_TRUE(at::equal(engine.logits(ids, true), exact.logits(ids, true))) << format;
      const at::Tensor apart = engine.logits(ids, false) - exact.logits(ids, false);
      EXPECT_LT(apart.abs().max().item<float>(), 1e-5f) << format;
    }
  }
}

TEST(Engine, RowsOfHeadsMayLieInAnotherOrder) {
  for (const auto& changes : families()) {
    const models::Decoder model(tiny(changes), 3);
    const std::int64_t width = model.config().head_dim;
    HeadOrder order(static_cast<std::size_t>(width));
    for (std::int64_t i = 0; i < width; ++i) order[i] = (i * 3 + 1) % width;
    Parameters moved = parameters_of(model);
    for (auto& [name, tensor] : moved) {
      if (name.find("q_proj") == std::string::npos && name.find("k_proj") == std::string::npos) {
        continue;
      }
      const at::Tensor from = tensor.detach();
      tensor = from.clone();
      for (std::int64_t row = 0; row < from.size(0); ++row) {
        tensor[row / width * width + order[row % width]].copy_(from[row]);
      }
    }
    const Ids ids = random_ids(9, kContext);
    const Engine plain(model.config(), parameters_of(model));
    const Engine reordered(model.config(), moved, {}, Activations::kFloat32, order);
    EXPECT_TRUE(at::equal(reordered.logits(ids, true), plain.logits(ids, true)));
  }
  const models::Decoder model(tiny(), 3);
  for (const HeadOrder& order : {HeadOrder{0, 1}, HeadOrder{0, 0, 1, 2, 3, 4, 5, 6}}) {
    expect_says(error_of([&] {
                  Engine(model.config(), parameters_of(model), {}, Activations::kFloat32, order);
                }),
                {"order of a head's numbers", "0 to 7"});
  }
}

TEST(Engine, PromptsInBfloat16AreNearTheExactOnes) {
  for (const auto& changes : families()) {
    const models::Decoder model(tiny(changes), 3);
    const Ids ids = random_ids(9, kContext);
    for (const char* format : {"f32", "bf16", "q8_0"}) {
      const Stored stored(model, format);
      const Engine engine(model.config(), stored.bytes, stored.formats);
      const at::Tensor exact = engine.logits(ids, false);
      const at::Tensor apart = engine.logits(ids, false, true) - exact;
      const float share = (apart.norm() / exact.norm()).item<float>();
      EXPECT_GT(share, 0.0f) << format;
      EXPECT_LT(share, 0.1f) << format;
      // Short ones are as they were.
      const Ids few(ids.begin(), ids.begin() + 20);
      EXPECT_TRUE(at::equal(engine.logits(few, false), engine.logits(few, false, true)));
    }
  }
}

TEST(Engine, TakesTensorsOf16Bits) {
  const models::Decoder model(tiny(), 3);
  for (const auto type : {at::kHalf, at::kBFloat16}) {
    Parameters given, floats;
    for (const auto& [name, tensor] : model.named_parameters()) {
      given[name] = tensor.detach().to(type);
      floats[name] = given[name].to(at::kFloat);
    }
    const Ids ids = random_ids(9, 20);
    EXPECT_TRUE(at::equal(Engine(model.config(), given).logits(ids, true),
                          Engine(model.config(), floats).logits(ids, true)));
  }
}

// The level is chosen once a process, so each is tested in a process of its own.
TEST(EngineDeathTest, EveryInstructionSetOfThisCpuGivesTheDecodersLogits) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  kernels::active_level();  // this process keeps the level it was started with
  for (const auto level : kernels::gemv_variants().levels(kernels::detected_level())) {
    const std::string name = kernels::level_name(level);
    ::setenv("OMNIMA_CPU_ISA", name.c_str(), 1);
    EXPECT_EXIT(
        {
          const bool same = kernels::level_name(kernels::active_level()) == name &&
                            most_apart(Tiny(), 20, true) < 1e-4f &&
                            most_apart(Tiny(), 40, false) < 1e-4f;
          std::_Exit(same ? 0 : 1);
        },
        testing::ExitedWithCode(0), "")
        << name;
  }
  ::unsetenv("OMNIMA_CPU_ISA");
}

TEST(Engine, GreedyWritesTheDecodersLikeliestTokens) {
  Tiny tiny;
  GenerateOptions options;
  options.max_new_tokens = 12;
  const Ids prompt = random_ids(5, 6);
  const Written written = tiny.write({prompt}, options)[0];
  EXPECT_EQ(written.finish_reason, "length");
  Ids ids = prompt;
  for (int i = 0; i < 12; ++i) {
    const auto count = static_cast<std::int64_t>(ids.size());
    const at::Tensor logits = tiny.model.logits(at::tensor(ids, at::kLong).reshape({1, count}));
    ids.push_back(logits[0][count - 1].argmax().item<std::int64_t>());
  }
  EXPECT_EQ(Ids(ids.begin() + 6, ids.end()), written.ids);
}

TEST(Engine, ASequenceIsTheSameAloneAndInAnyBatch) {
  for (const auto& changes : families()) {
    Tiny tiny(changes);
    GenerateOptions options;
    options.max_new_tokens = 10;
    options.temperature = 0.9;
    options.repetition_penalty = 1.2;
    options.top_p = 0.95;
    std::vector<Ids> prompts;
    for (std::uint64_t i = 0; i < 7; ++i) {
      prompts.push_back(random_ids(i, 1 + static_cast<std::int64_t>(i) * 6));
    }
    const auto together = tiny.write(prompts, options);
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      options.seeds = {100 + i};
      const auto alone = tiny.write({prompts[i]}, options);
      EXPECT_EQ(alone[0].ids, together[i].ids) << "sequence " << i;
      EXPECT_EQ(alone[0].finish_reason, together[i].finish_reason);
    }
  }
}

TEST(Engine, MoreSequencesThanPlacesWaitTheirTurn) {
  Tiny tiny;
  GenerateOptions options;
  options.max_new_tokens = 3;
  options.temperature = 1;
  std::vector<Ids> prompts;
  for (std::uint64_t i = 0; i < 70; ++i) prompts.push_back(random_ids(i, 2));
  const auto together = tiny.write(prompts, options);
  ASSERT_EQ(together.size(), 70u);
  for (const std::size_t i : {0u, 63u, 64u, 69u}) {
    options.seeds = {100 + i};
    EXPECT_EQ(tiny.write({prompts[i]}, options)[0].ids, together[i].ids);
  }
}

TEST(Engine, TheNumberOfThreadsChangesNothing) {
  Tiny tiny;
  GenerateOptions options;
  options.max_new_tokens = 10;
  options.temperature = 1;
  const int threads = at::get_num_threads();
  const auto prompts = std::vector<Ids>{random_ids(1, 3), random_ids(2, 9)};
  at::set_num_threads(1);
  const auto one = tiny.write(prompts, options);
  const at::Tensor logits = tiny.engine.logits(prompts[1], true);
  at::set_num_threads(2);
  const auto two = tiny.write(prompts, options);
  EXPECT_TRUE(at::equal(tiny.engine.logits(prompts[1], true), logits));
  at::set_num_threads(threads);
  EXPECT_EQ(one[0].ids, two[0].ids);
  EXPECT_EQ(one[1].ids, two[1].ids);
}

TEST(Engine, TheSeedDecides) {
  Tiny tiny;
  GenerateOptions options;
  options.max_new_tokens = 20;
  options.temperature = 1;
  options.seeds = {1, 1, 2};
  const Ids prompt = random_ids(1, 4);
  const auto written = tiny.write({prompt, prompt, prompt}, options);
  EXPECT_EQ(written[0].ids, written[1].ids);
  EXPECT_NE(written[0].ids, written[2].ids);
}

TEST(Engine, StopIdsEndASequenceAndItKeepsTheStop) {
  Tiny tiny;
  GenerateOptions options;
  options.max_new_tokens = 10;
  const Ids prompt = random_ids(5, 6), other = random_ids(6, 3);
  const auto free = tiny.write({prompt, other}, options);
  const std::int64_t stop = free[0].ids[4];
  const auto end = std::find(free[0].ids.begin(), free[0].ids.end(), stop) + 1;
  options.stop_ids = {stop};
  const auto stopped = tiny.write({prompt}, options);
  EXPECT_EQ(stopped[0].finish_reason, "eos");
  EXPECT_EQ(stopped[0].ids, Ids(free[0].ids.begin(), end));
}

TEST(Engine, TheCallbackSeesEveryTokenAndEndsItsSequenceAlone) {
  Tiny tiny;
  GenerateOptions options;
  options.max_new_tokens = 8;
  options.temperature = 1;
  const std::vector<Ids> prompts{random_ids(5, 6), random_ids(6, 3), random_ids(7, 1)};
  const auto free = tiny.write(prompts, options);
  std::vector<Ids> seen(3);
  int polls = 0;
  Hooks hooks;
  hooks.on_token = [&](std::int64_t sequence, std::int64_t id) {
    auto& ids = seen[static_cast<std::size_t>(sequence)];
    ids.push_back(id);
    return sequence != 1 || ids.size() < 3;
  };
  hooks.poll = [&] { ++polls; };
  const auto written = tiny.write(prompts, options, hooks);
  EXPECT_EQ(written[1].finish_reason, "stop");
  EXPECT_EQ(written[1].ids, Ids(free[1].ids.begin(), free[1].ids.begin() + 3));
  EXPECT_EQ(written[0].ids, free[0].ids);
  EXPECT_EQ(written[2].ids, free[2].ids);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(seen[i], written[i].ids);
  EXPECT_EQ(polls, 3 + 7);  // one a prompt and one a step
}

TEST(Engine, WhatAHookThrowsEndsTheCallAndTheEngineStaysUsable) {
  Tiny tiny;
  GenerateOptions options;
  options.max_new_tokens = 5;
  Hooks hooks;
  hooks.poll = [] { throw std::runtime_error("interrupted"); };
  const std::vector<Ids> prompts{random_ids(5, 6)};
  const auto before = tiny.write(prompts, options);
  EXPECT_THROW(tiny.write(prompts, options, hooks), std::runtime_error);
  EXPECT_EQ(tiny.write(prompts, options)[0].ids, before[0].ids);
}

TEST(Engine, TheContextEndsASequence) {
  Tiny tiny;
  GenerateOptions options;
  options.max_new_tokens = 1000;
  const auto written =
      tiny.write({random_ids(1, kContext - 4), random_ids(2, kContext - 1)}, options);
  EXPECT_EQ(written[0].ids.size(), 4u);
  EXPECT_EQ(written[1].ids.size(), 1u);
  EXPECT_EQ(written[0].finish_reason, "length");
}

TEST(Engine, APromptThatDoesNotFitIsRefusedWithBothNumbers) {
  Tiny tiny;
  const GenerateOptions options;
  for (const std::int64_t count : {kContext, kContext + 9}) {
    expect_says(error_of([&] { tiny.write({{1}, random_ids(1, count)}, options); }),
                {"Prompt 1 has " + std::to_string(count) + " tokens", "context of 48"});
  }
  expect_says(error_of([&] { tiny.engine.logits(random_ids(1, 49), false); }),
              {"49 tokens", "context holds 48"});
}

TEST(Engine, PromptsAndOptionsThatMakeNoSenseAreRefused) {
  Tiny tiny;
  GenerateOptions options;
  EXPECT_TRUE(tiny.write({}, options).empty());
  expect_says(error_of([&] { tiny.write({{1}, {}}, options); }), {"Prompt 1 has no tokens"});
  expect_says(error_of([&] { tiny.write({{1, kVocab}}, options); }),
              {"Prompt 0 has token id 61", "ids from 0 to 60"});
  expect_says(error_of([&] { tiny.write({{-1}}, options); }), {"token id -1"});
  options.stop_ids = {kVocab};
  expect_says(error_of([&] { tiny.write({{1}}, options); }), {"stop_ids has 61"});
  options.stop_ids = {};
  options.seeds = {1, 2};
  expect_says(error_of([&] { tiny.write({{1}}, options); }), {"1 prompts but 2 seeds"});
}

TEST(Engine, FollowsTheModelsTraining) {
  Tiny tiny;
  const Ids ids = random_ids(4, 5);
  const at::Tensor before = tiny.engine.logits(ids, true);
  for (const auto& [name, tensor] : tiny.model.named_parameters()) {
    if (name == "model.embed_tokens.weight") tensor.detach().mul_(1.5);
  }
  const at::Tensor wanted =
      tiny.model.logits(at::tensor(ids, at::kLong).reshape({1, 5})).detach()[0];
  const at::Tensor after = tiny.engine.logits(ids, true);
  EXPECT_FALSE(at::equal(before, after));
  EXPECT_LT((after - wanted).abs().max().item<float>(), 1e-4f);
}

TEST(Engine, WeightsThatAreNotFiniteAreNamedInsteadOfWritten) {
  Tiny tiny;
  for (const auto& [name, tensor] : tiny.model.named_parameters()) {
    if (name == "model.norm.weight") tensor.detach().fill_(std::nanf(""));
  }
  EXPECT_THROW(tiny.write({{1, 2}}, {}), core::NonFiniteError);
}

TEST(Weights, ThatAreMissingOrOfAnotherKindAreRefusedByName) {
  models::Decoder model(tiny(), 3);
  const std::string name = "model.layers.1.mlp.up_proj.weight";
  const auto refused = [&](const std::function<void(Parameters&)>& change) {
    Parameters parameters = parameters_of(model);
    change(parameters);
    return error_of([&] { Engine(model.config(), parameters); });
  };
  expect_says(refused([&](Parameters& p) { p.erase(name); }), {"no parameter \"" + name});
  const at::Tensor weight = parameters_of(model).at(name).detach();
  expect_says(refused([&](Parameters& p) { p[name] = weight.t(); }),
              {name, "has shape", "asks for"});
  expect_says(refused([&](Parameters& p) { p[name] = weight.to(at::kDouble); }),
              {name, "needs contiguous float32"});
  expect_says(refused([&](Parameters& p) { p[name] = weight.t().contiguous().t(); }),
              {name, "needs contiguous float32"});
}

TEST(Engine, DrawsKnownIdsOnly) {
  const Tiny tiny;
  GenerateOptions options;
  options.temperature = 5;
  options.max_new_tokens = 12;
  options.repetition_penalty = 1.2;
  options.known_ids = 3;
  const Ids prompt = {kVocab - 1, 1};  // a prompt may hold the others
  for (const auto& written : tiny.write({prompt, prompt}, options)) {
    EXPECT_EQ(written.ids.size(), 12u);
    for (const std::int64_t id : written.ids) EXPECT_LT(id, 3);
  }
  options.known_ids = kVocab;
  const auto all = tiny.write({prompt}, options);
  options.known_ids = 0;
  EXPECT_EQ(all[0].ids, tiny.write({prompt}, options)[0].ids);
  EXPECT_GT(*std::max_element(all[0].ids.begin(), all[0].ids.end()), 2);
  options.known_ids = kVocab + 1;
  expect_says(error_of([&] { tiny.write({prompt}, options); }), {"known_ids is"});
}

}  // namespace
}  // namespace omnima::generate

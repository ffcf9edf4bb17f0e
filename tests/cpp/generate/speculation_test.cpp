// Guessing ahead changes no text: the same tokens with and without, for every kind of model.
#include "omnima/generate/speculation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <vector>

#include "../models/families.h"
#include "omnima/core/error.h"
#include "omnima/generate/engine.h"
#include "omnima/generate/runner.h"
#include "omnima/generate/sampler.h"
#include "omnima/models/decoder.h"
#include "omnima/quant/convert.h"
#include "tiny_models.h"

namespace omnima::generate {
namespace {

constexpr std::int64_t kVocab = 23, kContext = 64;

models::Decoder model_of(const models::Changes& values, std::uint64_t seed = 3) {
  return models::Decoder(tiny_config(values, kVocab, kContext), seed);
}

Engine engine_of(const models::Changes& values, std::uint64_t seed = 3) {
  const auto model = model_of(values, seed);
  return Engine(model.config(), parameters_of(model));
}

Ids random_ids(std::uint64_t seed, std::int64_t count) {
  return generate::random_ids(seed, count, kVocab);
}

// Of several lengths; the last ones repeat themselves.
std::vector<Ids> prompts() {
  std::vector<Ids> all;
  for (std::uint64_t i = 0; i < 3; ++i) {
    all.push_back(random_ids(i, 1 + 5 * static_cast<std::int64_t>(i)));
  }
  for (std::uint64_t i = 0; i < 2; ++i) {
    Ids text = random_ids(40 + i, 7);
    for (int j = 0; j < 14; ++j) text.push_back(text[static_cast<std::size_t>(j)]);
    all.push_back(text);
  }
  return all;
}

GenerateOptions options_of(std::size_t count, double temperature = 0) {
  GenerateOptions options;
  options.max_new_tokens = 40;
  options.temperature = temperature;
  for (std::size_t i = 0; i < count; ++i) options.seeds.push_back(100 + i);
  return options;
}

TEST(Pace, GuessesFewerRowsThanWereMeasured) {
  Pace pace;
  pace.learn(3, 0.006);
  pace.learn(5, 0.009);
  EXPECT_LT(pace.cost(1), pace.cost(2));
  EXPECT_LT(pace.cost(2), pace.cost(3));
  EXPECT_GT(pace.cost(1), 0.005);
}

TEST(Pace, KnowsWhatWasMeasuredAndGuessesTheRest) {
  Pace pace;
  EXPECT_GT(pace.cost(3), pace.cost(1));
  pace.learn(1, 2.0);
  EXPECT_EQ(pace.cost(1), 2.0);
  EXPECT_GT(pace.cost(4), 2.0);
  EXPECT_LT(pace.cost(4), 4.0);
  pace.learn(4, 8.0);
  EXPECT_EQ(pace.cost(4), 8.0);
  EXPECT_GT(pace.cost(5), 8.0);
  pace.learn(1, 100.0);  // held up once
  EXPECT_LE(pace.cost(1), 2.5);
  for (int i = 0; i < 40; ++i) pace.learn(1, 1.0);
  EXPECT_NEAR(pace.cost(1), 1.0, 1e-3);
}

TEST(Ambition, ProposesAllWhereRowsAreCheapAndGuessesRight) {
  Ambition ambition(15);
  const Pace pace;
  EXPECT_GE(ambition.next(pace, 0, 15), 1);
  for (int i = 0; i < 20; ++i) ambition.learn(5, 5);
  EXPECT_EQ(ambition.next(pace, 0, 15), 15);
  EXPECT_EQ(ambition.next(pace, 0, 4), 4);
  EXPECT_EQ(ambition.next(pace, 0, 0), 0);
}

TEST(Ambition, TriesSeldomWhereGuessesAreWrong) {
  Ambition ambition(15);
  const Pace pace;
  std::int64_t proposed = 0;
  for (int i = 0; i < 400; ++i) {
    const std::int64_t now = ambition.next(pace, 0, 15);
    proposed += now;
    ambition.learn(now, 0);
  }
  EXPECT_LE(proposed, 60);  // in 400 steps
  EXPECT_GE(proposed, 10);
}

TEST(Ambition, ProposesNothingThatCostsMoreThanItBrings) {
  Ambition ambition(15);
  Pace pace;  // a step takes as long as its rows one by one
  for (std::int64_t rows = 1; rows <= 16; ++rows) pace.learn(rows, static_cast<double>(rows));
  for (int i = 0; i < 20; ++i) ambition.learn(5, 5);
  ambition.learn(5, 4);
  EXPECT_EQ(ambition.next(pace, 0, 15), 0);
}

TEST(Speculation, RowsTogetherGiveTheLogitsOfRowsOneByOne) {
  for (const auto& changes : models::families()) {
    const auto model = model_of(changes);
    for (const char* format : {"f32", "bf16", "q8_0", "q4_0"}) {
      Parameters stored;
      Formats formats;
      for (const auto& [name, tensor] : model.named_parameters()) {
        stored[name] = tensor;
        const quant::Format& kind = quant::format_named(format);
        if (tensor.dim() != 2 || tensor.size(1) % kind.numbers != 0) continue;
        stored[name] = quant::quantized(kind, tensor);
        formats[name] = format;
      }
      const Weights weights(model.config(), stored, formats);
      const Ids ids = random_ids(8, 30);
      Runner runner(model.config(), weights, {40});
      DecodeState one(model.config(), 40), many(model.config(), 40);
      std::vector<float> wanted(ids.size() * kVocab), got(ids.size() * kVocab);
      SequenceState* const single[] = {&one};
      for (std::size_t i = 0; i < ids.size(); ++i) {
        runner.append(single, {&ids[i], 1});
        runner.logits(0, 1, &wanted[i * kVocab]);
      }
      // In parts of every size, each with wrong tokens behind it that are forgotten.
      for (std::size_t at = 0, size = 1; at < ids.size(); at += size, ++size) {
        size = std::min(size, ids.size() - at);
        Ids part(ids.begin() + at, ids.begin() + at + size);
        part.insert(part.end(), 3, 1);
        const std::vector<SequenceState*> states(part.size(), &many);
        runner.append(states, part);
        runner.logits(0, size, &got[at * kVocab]);
        many.truncate(static_cast<std::int64_t>(at + size));
      }
      EXPECT_EQ(got, wanted) << format;
    }
  }
}

void expect_same(const Engine& engine, GenerateOptions options, const Engine* draft) {
  const auto given = prompts();
  const auto wanted = engine.generate(given, options, {});
  for (const std::int64_t tokens : {1, 2, 7, 64}) {
    options.speculative_tokens = tokens;
    const auto got = engine.generate(given, options, {}, draft);
    for (std::size_t i = 0; i < given.size(); ++i) {
      EXPECT_EQ(got[i].ids, wanted[i].ids) << tokens << " guesses, prompt " << i;
      EXPECT_EQ(got[i].finish_reason, wanted[i].finish_reason);
      EXPECT_LE(got[i].accepted, got[i].proposed);
      GenerateOptions alone = options;
      alone.seeds = {options.seeds[i]};
      EXPECT_EQ(engine.generate({given[i]}, alone, {}, draft)[0].ids, wanted[i].ids);
    }
  }
}

TEST(Speculation, ChangesNoTextOfAnyFamily) {
  for (const auto& changes : models::families()) {
    const Engine engine = engine_of(changes);
    const Engine draft = engine_of({{"num_hidden_layers", std::int64_t{1}}}, 9);
    for (const double temperature : {0.0, 0.9}) {
      const auto options = options_of(5, temperature);
      expect_same(engine, options, nullptr);
      expect_same(engine, options, &draft);
    }
  }
}

TEST(Speculation, ChangesNoTextWithAnyWayOfDrawing) {
  const Engine engine = engine_of({}), draft = engine_of({}, 4);
  GenerateOptions options = options_of(5, 1.1);
  options.repetition_penalty = 1.3;
  options.top_k = 9;
  options.top_p = 0.9;
  options.min_p = 0.01;
  options.known_ids = 20;
  options.stop_ids = {4};
  for (const Engine* ahead : {static_cast<const Engine*>(nullptr), &draft}) {
    expect_same(engine, options, ahead);
    GenerateOptions greedy = options;
    greedy.temperature = 0;
    expect_same(engine, greedy, ahead);
  }
}

TEST(Speculation, ADraftOfTheSameWeightsIsAlwaysRight) {
  const Engine engine = engine_of({});
  for (const double temperature : {0.0, 1.0}) {
    GenerateOptions options = options_of(1, temperature);
    options.repetition_penalty = 1.2;
    options.speculative_tokens = 7;
    const Written written = engine.generate({{1, 2, 3}}, options, {}, &engine)[0];
    EXPECT_GT(written.proposed, 0);
    EXPECT_EQ(written.accepted, written.proposed);
  }
}

TEST(Speculation, ADraftMayHaveLessContext) {
  const Engine engine = engine_of({});
  const Engine draft = engine_of({{"max_position_embeddings", std::int64_t{16}}});
  expect_same(engine, options_of(5), &draft);
}

TEST(Speculation, ManySequencesShareTheRows) {
  const Engine engine = engine_of({});
  std::vector<Ids> given;
  for (std::uint64_t i = 0; i < 70; ++i) given.push_back({1, 2, 1, 2, static_cast<int>(i % 9)});
  GenerateOptions options = options_of(given.size());
  options.max_new_tokens = 20;
  const auto wanted = engine.generate(given, options, {});
  options.speculative_tokens = 5;
  const auto got = engine.generate(given, options, {});
  for (std::size_t i = 0; i < given.size(); ++i) EXPECT_EQ(got[i].ids, wanted[i].ids);
}

// Drawn with proposals, a token is as likely as the model says: 2,000 draws of the second token.
TEST(Speculation, DrawsFromTheModelsDistribution) {
  constexpr int kDraws = 2000;
  const Engine engine = engine_of({}), draft = engine_of({}, 4);
  const at::Tensor logits = engine.logits({1, 2, 1, 2, 1}, true);
  for (const Engine* ahead : {static_cast<const Engine*>(nullptr), &draft}) {
    GenerateOptions options = options_of(0, 1.0);
    options.max_new_tokens = 3;
    options.speculative_tokens = 2;
    std::vector<double> counts(kVocab), expected(kVocab);
    std::int64_t proposed = 0, drawn = 0;
    for (std::uint64_t seed = 0; drawn < kDraws; ++seed) {
      options.seeds = {seed};
      const Written written = engine.generate({{1, 2, 1, 2}}, options, {}, ahead)[0];
      proposed += written.proposed;
      if (written.ids[0] != 1) continue;  // the text that looks up
      ++counts[static_cast<std::size_t>(written.ids[1])];
      ++drawn;
    }
    EXPECT_GT(proposed, 0);
    const float* last = logits.const_data_ptr<float>() + 4 * kVocab;
    double total = 0, chi_square = 0;
    for (std::size_t i = 0; i < kVocab; ++i) total += expected[i] = std::exp(last[i]);
    for (std::size_t i = 0; i < kVocab; ++i) {
      expected[i] *= kDraws / total;
      chi_square += (counts[i] - expected[i]) * (counts[i] - expected[i]) / expected[i];
    }
    EXPECT_LT(chi_square, 55);  // 22 degrees of freedom: p = 1e-4
  }
}

std::string error_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const core::ConfigError& error) {
    return error.what();
  }
  return "no error";
}

TEST(Speculation, RefusesADraftOfAnotherVocabularyOrWithoutGuesses) {
  const Engine engine = engine_of({});
  const Engine draft = engine_of({{"vocab_size", std::int64_t{24}}});
  GenerateOptions options = options_of(1);
  EXPECT_NE(
      error_of([&] { engine.generate({{1}}, options, {}, &engine); }).find("speculative_tokens"),
      std::string::npos);
  options.speculative_tokens = 3;
  const std::string error = error_of([&] { engine.generate({{1}}, options, {}, &draft); });
  EXPECT_NE(error.find("24 ids, but the model has 23"), std::string::npos) << error;
}

}  // namespace
}  // namespace omnima::generate

// Copies in fewer bits: made after some reads, used by the same text to the bit, and let go when
// the weights change.
#include "omnima/generate/compact_copies.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <optional>
#include <string>

#include "omnima/core/error.h"
#include "omnima/generate/engine.h"
#include "omnima/generate/runner.h"
#include "tiny_models.h"

namespace omnima::generate {
namespace {

constexpr std::int64_t kVocab = 61, kContext = 48;

// The variable as long as one lives.
class CompactAfter {
 public:
  explicit CompactAfter(const char* reads) { setenv("OMNIMA_COMPACT_AFTER", reads, 1); }
  ~CompactAfter() { unsetenv("OMNIMA_COMPACT_AFTER"); }
  CompactAfter(const CompactAfter&) = delete;
  CompactAfter& operator=(const CompactAfter&) = delete;
};

Parameters halves_of(const models::Decoder& model) {
  Parameters all;
  for (const auto& [name, tensor] : parameters_of(model)) {
    all[name] = tensor.detach().to(tensor.dim() == 2 ? at::kBFloat16 : at::kFloat);
  }
  return all;
}

Engine engine_of(const Parameters& parameters, const models::DecoderConfig& config,
                 const char* reads) {
  const CompactAfter after(reads);
  return Engine(config, parameters);
}

GenerateOptions greedy(std::int64_t tokens, std::size_t sequences) {
  GenerateOptions options;
  options.temperature = 0;
  options.max_new_tokens = tokens;
  for (std::size_t i = 0; i < sequences; ++i) options.seeds.push_back(i);
  return options;
}

// The same in every run.
at::Tensor drawn(at::IntArrayRef shape) {
  at::manual_seed(5);
  return at::randn(shape).to(at::kBFloat16);
}

bool copies_pay() { return kernels::unpacks_in_vectors(); }

CompactOptions at_once(std::int64_t reads) { return {reads, 0, 1}; }

TEST(CompactCopies, AreMadeOnceAllWasReadSoOften) {
  if (!copies_pay()) GTEST_SKIP() << "Plain numbers are faster on this CPU.";
  const at::Tensor a = drawn({40, 128});
  const at::Tensor b = drawn({24, 70});
  const auto bytes = static_cast<std::int64_t>(a.nbytes() + b.nbytes());
  Team team(2);
  CompactCopies copies({quant::matrix_of(a), quant::matrix_of(b)}, at_once(3));
  EXPECT_EQ(copies.current(), nullptr);
  EXPECT_EQ(copies.after_step(bytes, team), nullptr);
  EXPECT_EQ(copies.after_step(2 * bytes - 1, team), nullptr);
  const auto made = copies.after_step(1, team);
  ASSERT_NE(made, nullptr);
  EXPECT_EQ(copies.current(), made);
  ASSERT_EQ(made->size(), 2u);
  const kernels::Compact& layout = made->at(1)->layout;
  at::Tensor back = at::empty_like(b);
  for (std::int64_t row = 0; row < 24; ++row) {
    kernels::unpack_compact_row(layout, row,
                                static_cast<kernels::bfloat16*>(back.data_ptr()) + row * 70);
  }
  EXPECT_TRUE(at::equal(back, b));
}

TEST(CompactCopies, AreMadeInSteps) {
  if (!copies_pay()) GTEST_SKIP() << "Plain numbers are faster on this CPU.";
  std::vector<quant::Matrix> matrices;
  for (int i = 0; i < 6; ++i) {
    matrices.push_back(quant::matrix_of(drawn({8, 64})));
  }
  Team team(2);
  CompactCopies copies(matrices, {1, 0, 3});
  copies.current();
  EXPECT_EQ(copies.after_step(6 * 8 * 64 * 2, team), nullptr);
  EXPECT_EQ(copies.after_step(0, team), nullptr);
  EXPECT_NE(copies.after_step(0, team), nullptr);
}

TEST(CompactCopies, AreLetGoWhenWeightsChange) {
  if (!copies_pay()) GTEST_SKIP() << "Plain numbers are faster on this CPU.";
  at::Tensor weight = drawn({40, 128});
  Team team(2);
  CompactCopies copies({quant::matrix_of(weight)}, at_once(1));
  copies.current();
  ASSERT_NE(copies.after_step(weight.nbytes(), team), nullptr);
  weight.mul_(2);  // torch counts this
  EXPECT_EQ(copies.current(), nullptr);
  const auto again = copies.after_step(weight.nbytes(), team);
  ASSERT_NE(again, nullptr);
  EXPECT_EQ(copies.current(), again);
  auto* numbers = static_cast<kernels::bfloat16*>(weight.data_ptr());  // and not this
  for (std::int64_t i = 0; i < weight.numel(); ++i) numbers[i].bits ^= 1;
  EXPECT_EQ(copies.current(), nullptr);
}

TEST(CompactCopies, AMatrixOfAnyNumbersStaysAsItIs) {
  if (!copies_pay()) GTEST_SKIP() << "Plain numbers are faster on this CPU.";
  at::Tensor any = drawn({40, 128});
  auto* numbers = static_cast<kernels::bfloat16*>(any.data_ptr());
  for (std::int64_t i = 0; i < any.numel(); ++i) {
    numbers[i].bits = static_cast<std::uint16_t>(40503 * i);
  }
  Team team(2);
  CompactCopies copies({quant::matrix_of(any)}, at_once(1));
  copies.current();
  const auto made = copies.after_step(any.nbytes(), team);
  ASSERT_NE(made, nullptr);
  EXPECT_EQ(made->at(0), nullptr);
}

TEST(CompactCopies, NeverWhereTheyDoNotPay) {
  Team team(2);
  const auto weight = quant::matrix_of(drawn({40, 128}));
  CompactCopies small({weight}, {1, 1 << 20, 1}), off({weight}, at_once(0));
  for (CompactCopies* copies : {&small, &off}) {
    EXPECT_EQ(copies->current(), nullptr);
    EXPECT_EQ(copies->after_step(1 << 30, team), nullptr);
  }
}

TEST(CompactCopies, TheVariableIsANumberOfReads) {
  const auto asked = [](const char* text) {
    const CompactAfter after(text);
    return CompactOptions::from_environment();
  };
  EXPECT_EQ(asked("0").reads, 0);
  EXPECT_EQ(asked("7").reads, 7);
  EXPECT_EQ(asked("7").least_bytes, 0);
  EXPECT_EQ(asked("").reads, CompactOptions().reads);
  for (const char* wrong : {"no", "-1", "3x"}) EXPECT_THROW(asked(wrong), core::ConfigError);
}

// Every family of layers that multiplies, with copies from the first step on.
TEST(CompactCopies, TheTextIsTheSameToTheBit) {
  for (const models::Changes& changes :
       {models::Changes{}, models::Changes{{"num_experts", std::int64_t{4}}},
        models::Changes{{"mlp_bias", true}, {"tie_word_embeddings", false}}}) {
    const auto config = tiny_config(changes, kVocab, kContext);
    const models::Decoder model(config, 3);
    const auto parameters = halves_of(model);
    const Engine plain = engine_of(parameters, config, "0");
    const Engine compact = engine_of(parameters, config, "1");
    for (const std::size_t sequences : {std::size_t{1}, std::size_t{3}, std::size_t{12}}) {
      std::vector<Ids> prompts;
      for (std::size_t i = 0; i < sequences; ++i) prompts.push_back(random_ids(i, 5, kVocab));
      const auto expected = plain.generate(prompts, greedy(40, sequences), {});
      const auto written = compact.generate(prompts, greedy(40, sequences), {});
      for (std::size_t i = 0; i < sequences; ++i) EXPECT_EQ(written[i].ids, expected[i].ids);
    }
    const Ids ids = random_ids(9, 40, kVocab);
    EXPECT_TRUE(at::equal(compact.logits(ids, true), plain.logits(ids, true)));
  }
}

TEST(CompactCopies, TrainingBetweenTwoCallsIsNoticed) {
  const auto config = tiny_config({}, kVocab, kContext);
  const models::Decoder model(config, 3);
  auto parameters = halves_of(model);
  const Engine engine = engine_of(parameters, config, "1");
  const Ids ids = random_ids(4, 30, kVocab);
  at::Tensor before;
  for (int step = 0; step < 3; ++step) {
    engine.generate({ids}, greedy(15, 1), {});
    const at::Tensor now = engine.logits(ids, true);
    EXPECT_TRUE(at::equal(now, engine_of(parameters, config, "0").logits(ids, true))) << step;
    if (step > 0) EXPECT_FALSE(at::equal(now, before));
    before = now;
    // As an optimizer of our own writes: torch sees the first, not the second.
    for (auto& [name, tensor] : parameters) {
      if (tensor.scalar_type() != at::kBFloat16) continue;
      if (step == 0) {
        tensor.mul_(1.25);
      } else {
        auto* numbers = static_cast<kernels::bfloat16*>(tensor.data_ptr());
        for (std::int64_t i = 0; i < tensor.numel(); ++i) numbers[i].bits ^= 8;
      }
    }
  }
}

// A runner may stay while the weights are trained: its next text reads them as they are.
TEST(CompactCopies, ATextThatBeginsAmidOthersFollowsTheWeights) {
  const auto config = tiny_config({}, kVocab, kContext);
  const models::Decoder model(config, 3);
  const auto parameters = halves_of(model);
  const Weights weights(config, parameters);
  CompactCopies copies(weights.halves, at_once(1));
  Runner runner(config, weights, {.longest = kContext}, &copies);
  Runner plain(config, weights, {.longest = kContext});
  const auto last_of = [&](Runner& of) {
    const auto state = of.begin(kContext);
    std::vector<float> logits(kVocab);
    SequenceState* const states[] = {state.get()};
    for (const std::int64_t id : random_ids(6, 8, kVocab)) {
      of.append(states, {&id, 1});
      of.logits(0, 1, logits.data());
    }
    return logits;
  };
  const auto before = last_of(runner);
  EXPECT_EQ(before, last_of(plain));
  EXPECT_EQ(copies.still_current() != nullptr, copies_pay());
  for (const auto& [name, tensor] : parameters) tensor.mul_(0.75);
  EXPECT_EQ(copies.still_current(), nullptr);
  const auto after = last_of(runner);
  EXPECT_EQ(after, last_of(plain));
  EXPECT_NE(after, before);
}

TEST(CompactCopies, ASetOfOneTextOutlivesAChange) {
  if (!copies_pay()) GTEST_SKIP() << "Plain numbers are faster on this CPU.";
  std::shared_ptr<const CompactCopies::Set> held;
  {
    const at::Tensor weight = drawn({16, 64});
    Team team(1);
    CompactCopies copies({quant::matrix_of(weight)}, at_once(1));
    copies.current();
    held = copies.after_step(weight.nbytes(), team);
  }
  std::vector<kernels::bfloat16> row(64);
  kernels::unpack_compact_row(held->at(0)->layout, 15, row.data());
  EXPECT_EQ(held.use_count(), 1);
}

}  // namespace
}  // namespace omnima::generate

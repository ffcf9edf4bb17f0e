// Whole training steps of a small model on the emulated device, beside the same steps on the CPU's
// plain path: losses, norms and weights, with accumulation, ignored labels and packed documents.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>

#include <cmath>

#include "../step_fixture.h"
#include "emulated_cuda/seams.h"

namespace omnima::train {
namespace {

using ops::cuda::AsDevice;
using Steps = std::vector<std::vector<data::Batch>>;

struct Trace {
  std::vector<StepResult> results;
  at::Tensor weights;
};

Trace train(const Steps& steps, const StepOptions& options, const Changes& changes, bool emulated) {
  const auto device = emulated ? std::make_unique<AsDevice>() : nullptr;
  TrainStep step(small(5, changes), options);
  Trace trace;
  for (const auto& batches : steps) trace.results.push_back(step.run_batches(batches));
  trace.weights = step.state().at("weights").clone();
  return trace;
}

void expect_same_course(const Steps& steps, const StepOptions& options, double tolerance,
                        const Changes& changes = {}) {
  const Trace a = train(steps, options, changes, true), b = train(steps, options, changes, false);
  for (std::size_t i = 0; i < steps.size(); ++i) {
    EXPECT_NEAR(a.results[i].loss, b.results[i].loss, tolerance) << "step " << i;
    EXPECT_NEAR(a.results[i].grad_norm, b.results[i].grad_norm,
                10 * tolerance * (1 + b.results[i].grad_norm))
        << "step " << i;
    EXPECT_EQ(a.results[i].tokens, b.results[i].tokens);
    EXPECT_EQ(a.results[i].lr, b.results[i].lr);
  }
  const double mean = (a.weights - b.weights).abs().mean().item<double>();
  EXPECT_LE(mean, tolerance * options.lr * 20) << "weights on average";
}

// Step 1 runs eagerly, step 2 is captured and replayed, the others replay; then shapes change.
Steps several() {
  Steps steps;
  for (std::int64_t i = 0; i < 4; ++i) {
    steps.push_back({some_batch(2, 8, i, i), some_batch(2, 8, 3, i + 9)});
  }
  steps.push_back({some_batch(3, 5, 2)});
  steps.push_back({some_batch(2, 8, 16), some_batch(2, 8, 0)});  // one batch without targets
  return steps;
}

TEST(EmulatedStep, FollowsTheCpuInFloat32) {
  expect_same_course(several(), options_with("fp32"), 2e-4);
}

TEST(EmulatedStep, FollowsTheCpuInBfloat16) {
  expect_same_course(several(), options_with("bf16"), 2e-2);
}

TEST(EmulatedStep, FollowsTheCpuForTheOtherFamily) {
  const Changes gpt{{"norm", std::string("layer_norm")},
                    {"activation", std::string("gelu")},
                    {"positions", std::string("learned")},
                    {"attention_bias", true},
                    {"mlp_bias", true},
                    {"tie_word_embeddings", true}};
  expect_same_course(several(), options_with("fp32"), 2e-4, gpt);
  expect_same_course(several(), options_with("bf16"), 2e-2, gpt);
}

TEST(EmulatedStep, FollowsTheCpuOnPackedDocuments) {
  auto batch = some_batch(2, 12, 0);
  for (std::int32_t i = 0; i < 24; ++i) batch.segments.push_back(i % 12 / 5);
  const Steps steps{{batch}, {batch}, {batch}};
  expect_same_course(steps, options_with("fp32"), 2e-4);
  expect_same_course(steps, options_with("bf16"), 2e-2);
}

TEST(EmulatedStep, ClipsLikeTheCpu) {
  StepOptions options = options_with("fp32");
  options.clip_norm = 0.05;
  expect_same_course(several(), options, 2e-4);
}

// The device's own end of a step is AdamW's; all else runs operator by operator.
TEST(EmulatedStep, OtherOptimizersRunOperatorByOperator) {
  const int threads = at::get_num_threads();
  at::set_num_threads(1);  // the emulated device has one stream
  for (const auto& name : optim::optimizer_names()) {
    StepOptions options = options_with("fp32");
    options.optimizer = name;
    expect_same_course(several(), options, 2e-3);
    const AsDevice device;
    EXPECT_EQ(TrainStep(small(), options).graph(), name == "adamw" ? "eager" : "");
  }
  StepOptions options = options_with("fp32");
  options.clip_value = 0.01;
  const AsDevice device;
  EXPECT_EQ(TrainStep(small(), options).graph(), "");
  options.clip_value = 0;
  options.freeze = {"*norm*@1-1"};
  EXPECT_EQ(TrainStep(small(), options).graph(), "");
  at::set_num_threads(threads);
}

TEST(EmulatedStep, RunsFromASourceAndIsRepeatable) {
  const AsDevice device;
  at::Tensor weights[2];
  for (at::Tensor& result : weights) {
    StepOptions options = options_with("bf16");
    options.accumulate = 2;
    TrainStep step(small(), options);
    Counting source;
    for (int i = 0; i < 3; ++i) step.run(source);
    EXPECT_EQ(source.position(), 6);
    result = step.state().at("weights").clone();
  }
  EXPECT_TRUE(same_bits(weights[0], weights[1]));
}

TEST(EmulatedStep, TheShadowIsTheRoundedWeights) {
  const AsDevice device;
  const auto model = small();
  TrainStep step(model, options_with("bf16"));
  EXPECT_EQ(step.graph(), "eager");
  for (int i = 0; i < 2; ++i) step.run_batches({some_batch(2, 8, 0)});
  EXPECT_TRUE(same_bits(model->arena().shadow(), model->arena().weights().to(at::kBFloat16)));
}

TEST(EmulatedStep, NonFiniteStopsBeforeTheWeightsChange) {
  const AsDevice device;
  const auto model = small();
  TrainStep step(model, options_with("fp32"));
  step.run_batches({some_batch(2, 8, 0)});
  const at::Tensor leaf = model->named_parameters()[0].second.detach();
  leaf.data_ptr<float>()[0] = NAN;  // token 0's embedding
  const at::Tensor before = step.state().at("weights").clone();
  data::Batch batch = some_batch(2, 8, 0);
  batch.input_ids[3] = 0;
  const std::string message = message_of<core::NonFiniteError>([&] { step.run_batches({batch}); });
  EXPECT_TRUE(holds(message, "The loss of step 2 is nan; the weights were not changed"));
  EXPECT_TRUE(same_bits(step.state().at("weights"), before));
  EXPECT_EQ(step.step(), 1);
}

TEST(EmulatedStep, NamesATokenOutsideTheVocabulary) {
  const AsDevice device;
  TrainStep step(small(), options_with("fp32"));
  data::Batch batch = some_batch(2, 8, 0);
  batch.input_ids[3] = kVocab;
  EXPECT_TRUE(holds(message_of<core::DataError>([&] { step.run_batches({batch}); }),
                    "lies outside the vocabulary of 61 tokens"));
}

}  // namespace
}  // namespace omnima::train

// The training step stops before harm, names what is wrong, and goes on bit for bit.
#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "step_fixture.h"

namespace omnima::train {
namespace {

// --- errors before harm
// ---------------------------------------------------------------------------

TEST(TrainStep, StopsBeforeTheWeightsChangeWhenTheLossIsNotFinite) {
  for (const char* precision : {"fp32", "bf16"}) {
    auto model = small();
    TrainStep step(model, options_with(precision));
    step.run_batches({some_batch(2, 8, 0)});
    model->arena().weights().narrow(0, 40, 1).fill_(NAN);
    std::map<std::string, at::Tensor> before;
    for (const auto& [name, buffer] : step.state()) before[name] = buffer.clone();
    const auto message =
        message_of<core::NonFiniteError>([&] { step.run_batches({some_batch(2, 8, 0, 9)}); });
    EXPECT_TRUE(holds(message, "The loss of step 2 is nan")) << message;
    EXPECT_EQ(step.step(), 1);
    EXPECT_EQ(step.last_batches()[0].input_ids, some_batch(2, 8, 0, 9).input_ids);
    for (const auto& [name, buffer] : step.state()) {
      EXPECT_TRUE(same_bits(buffer, before.at(name))) << name;
    }
  }
}

// A final norm of 1e25 over an output projection of 1e-25: the loss is fine, the gradient's square
// is not.
TEST(TrainStep, StopsBeforeTheWeightsChangeWhenTheGradientIsNotFinite) {
  auto model = small(5, {{"tie_word_embeddings", false}});
  for (auto& [name, leaf] : model->named_parameters()) {
    if (name == "model.norm.weight") leaf.detach().mul_(1e25);
    if (name == "lm_head.weight") leaf.detach().mul_(1e-25);
  }
  TrainStep step(model, {});
  const at::Tensor before = model->arena().weights().clone();
  const auto message =
      message_of<core::NonFiniteError>([&] { step.run_batches({some_batch(2, 8, 0)}); });
  EXPECT_TRUE(holds(message, "The gradient of step 1 is not finite")) << message;
  EXPECT_TRUE(same_bits(before, model->arena().weights()));
  EXPECT_EQ(step.step(), 0);
}

TEST(TrainStep, BadBatchesAreNamed) {
  TrainStep step(small(), {});
  const auto message = [&](const data::Batch& batch) {
    return message_of<core::DataError>([&] { step.run_batches({batch}); });
  };
  EXPECT_TRUE(holds(message(some_batch(1, 8, 8)), "Step 1 has no target token"));
  data::Batch batch = some_batch(2, 8, 0);
  batch.input_ids.pop_back();
  EXPECT_TRUE(holds(message(batch), "2 rows and 8 columns holds 15 values"));
  batch = some_batch(2, 8, 0);
  batch.segments = {0, 1};
  EXPECT_TRUE(holds(message(batch), "holds 2 values"));
  batch = some_batch(2, 8, 0);
  batch.labels[3] = kVocab;
  EXPECT_TRUE(holds(message(batch), "Label 61 at place 3"));
  EXPECT_EQ(step.step(), 0);
}

TEST(StepOptions, ValuesOutOfBoundsAreNamed) {
  const auto message = [](auto change) {
    StepOptions options;
    change(options);
    return message_of<core::ConfigError>([&] { TrainStep step(small(), options); });
  };
  EXPECT_EQ(message([](auto&) {}), "");
  EXPECT_TRUE(holds(message([](auto& o) { o.precision = "bf61"; }), "nearest is \"bf16\""));
  EXPECT_TRUE(holds(message([](auto& o) { o.optimizer = "adam"; }), "adamw"));
  EXPECT_TRUE(holds(message([](auto& o) { o.schedule = "cos"; }), "schedule"));
  EXPECT_TRUE(holds(message([](auto& o) { o.accumulate = 0; }), "accumulate is 0"));
  EXPECT_TRUE(holds(message([](auto& o) { o.clip_norm = -1; }), "clip_norm"));
  EXPECT_TRUE(holds(message([](auto& o) { o.total_steps = -1; }), "total_steps"));
  EXPECT_TRUE(holds(message([](auto& o) { o.lr = NAN; }), "lr"));
  EXPECT_TRUE(holds(message([](auto& o) { o.beta2 = 1; }), "beta2"));
}

// --- going on
// -------------------------------------------------------------------------------------

TEST(TrainStep, ContinuesBitForBitFromItsState) {
  for (const char* precision : {"fp32", "bf16"}) {
    StepOptions options;
    options.total_steps = 8;
    options.precision = precision;
    TrainStep run(small(7, {{"dropout", 0.1}}), options);
    std::map<std::string, at::Tensor> saved;
    for (int i = 0; i < 8; ++i) {
      if (i == 4) {
        for (const auto& [name, buffer] : run.state()) saved[name] = buffer.clone();
      }
      run.run_batches({some_batch(2 + i % 2, 8, i)});
    }
    TrainStep resumed(small(1, {{"dropout", 0.1}}), options);
    resumed.run_batches({some_batch(2, 8, 0)});  // what it did before does not matter
    resumed.load_state(saved, 4);
    EXPECT_EQ(resumed.step(), 4);
    for (int i = 4; i < 8; ++i) resumed.run_batches({some_batch(2 + i % 2, 8, i)});
    for (const auto& [name, buffer] : run.state()) {
      EXPECT_TRUE(same_bits(buffer, resumed.state().at(name))) << precision << " " << name;
    }
  }
}

TEST(TrainStep, RefusesAStateThatDoesNotFitAndKeepsItsOwn) {
  TrainStep step(small(), {});
  step.run_batches({some_batch(2, 8, 0)});
  std::map<std::string, at::Tensor> own, wrong;
  for (const auto& [name, buffer] : step.state()) {
    own[name] = buffer.clone();
    wrong[name] = buffer.clone() + 1.0;
  }
  const auto message = [&] {
    return message_of<core::DataError>([&] { step.load_state(wrong, 9); });
  };
  const at::Tensor good = wrong["exp_avg"];
  wrong["exp_avg"] = at::zeros({3}, at::kFloat);
  EXPECT_TRUE(holds(message(), "\"exp_avg\" holds 3 values"));
  wrong["exp_avg"] = good.to(at::kDouble);
  EXPECT_TRUE(holds(message(), "float32"));
  wrong.erase("exp_avg");
  EXPECT_TRUE(holds(message(), "lacks \"exp_avg\""));
  wrong["exp_avg"] = good;
  EXPECT_TRUE(holds(message_of<core::DataError>([&] { step.load_state(wrong, -1); }), "step -1"));
  EXPECT_EQ(step.step(), 1);
  for (const auto& [name, buffer] : step.state()) EXPECT_TRUE(same_bits(buffer, own.at(name)));
}

}  // namespace
}  // namespace omnima::train

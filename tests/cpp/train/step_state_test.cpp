// The training step stops before harm, names what is wrong, and goes on bit for bit.
#include <ATen/TensorOperators.h>
#include <ATen/ops/full_like.h>
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

TEST(TrainStep, ContinuesBitForBitWithEveryOptimizerAndTheRunningMean) {
  for (const auto& name : optim::optimizer_names()) {
    const bool averages = name == "schedule_free_adamw";
    StepOptions options = options_with("bf16");
    options.optimizer = name;
    options.ema_decay = averages ? 0 : 0.9;
    options.clip_value = 0.01;
    options.groups = {"*embed*:lr=0.5"};
    options.freeze = {"*norm*@2-3"};
    TrainStep run(small(7), options);
    optim::Buffers saved;
    Counting held_out;
    for (int i = 0; i < 4; ++i) {
      if (i == 2) {
        for (const auto& [key, buffer] : run.state()) saved[key] = buffer.clone();
      }
      run.run_batches({some_batch(2, 8, i)});
      run.evaluate(held_out, 1);  // shows other weights for a while
    }
    TrainStep resumed(small(1), options);
    resumed.run_batches({some_batch(2, 8, 0)});
    resumed.load_state(saved, 2);
    for (int i = 2; i < 4; ++i) resumed.run_batches({some_batch(2, 8, i)});
    EXPECT_TRUE(run.has_averaged_weights());
    for (const auto& [key, buffer] : run.state()) {
      EXPECT_TRUE(same_bits(buffer, resumed.state().at(key))) << name << " " << key;
    }
  }
}

TEST(TrainStep, TheRunningMeanIsEvaluatedAndTheTrainedWeightsComeBack) {
  StepOptions options = options_with("fp32", 0.01);
  options.ema_decay = 0.5;
  const auto model = small();
  TrainStep step(model, options);
  at::Tensor mean = model->arena().weights().clone();
  for (int i = 1; i <= 3; ++i) {
    step.run_batches({some_batch(2, 8, i)});
    const double keep = std::min(0.5, (1.0 + i) / (10.0 + i));
    mean = mean * keep + model->arena().weights() * (1 - keep);
  }
  EXPECT_LE((step.state().at("ema") - mean).abs().max().item<float>(), 1e-6f);
  const at::Tensor trained = model->arena().weights().clone();
  Counting source;
  const double own = step.evaluate(source, 1).first;
  EXPECT_TRUE(same_bits(trained, model->arena().weights()));
  step.show_averaged_weights(true);
  EXPECT_TRUE(same_bits(model->arena().weights(), step.state().at("ema")));
  EXPECT_TRUE(same_bits(step.state().at("weights"), trained));
  source.seek(0);
  EXPECT_EQ(step.evaluate(source, 1).first, own);
  step.run_batches({some_batch(2, 8, 0)});  // goes on from the trained ones
  step.show_averaged_weights(false);
  EXPECT_LE((model->arena().weights() - trained).abs().max().item<float>(), 0.03f);
  options.ema_eval = false;
  EXPECT_FALSE(TrainStep(model, options).has_averaged_weights());
}

TEST(TrainStep, FrozenParametersCountNothingAndValuesAreCut) {
  const auto norm = [](const std::vector<std::string>& freeze, double clip_value) {
    StepOptions options = options_with("fp32");
    options.freeze = freeze;
    options.clip_value = clip_value;
    const auto model = small();
    TrainStep step(model, options);
    const double norm = step.run_batches({some_batch(2, 8, 0)}).grad_norm;
    const double most = model->arena().gradients().abs().max().item<double>();
    return std::pair(norm, most);
  };
  const auto [all, largest] = norm({}, 0);
  const auto [some, rest] = norm({"*embed*"}, 0);
  EXPECT_LT(some, all);
  EXPECT_EQ(norm({"*"}, 0).first, 0.0);
  const auto [before, cut] = norm({}, largest / 2);
  EXPECT_EQ(before, all);
  EXPECT_NEAR(cut, largest / 2, 1e-6 * largest);
}

TEST(TrainStep, AppliesAGradientFromElsewhere) {
  StepOptions options = options_with("fp32", 0.1);
  options.optimizer = "sgd";
  options.momentum = 0;
  options.nesterov = false;
  options.weight_decay = 0;
  options.clip_norm = 1;
  const auto model = small();
  TrainStep step(model, options);
  const at::Tensor before = model->arena().weights().clone();
  const at::Tensor gradient = at::full_like(before, 3.0);
  const double norm = 3.0 * std::sqrt(static_cast<double>(before.numel()));
  EXPECT_NEAR(step.apply_gradient(gradient).grad_norm, norm, 1e-3 * norm);
  EXPECT_LE((before - model->arena().weights() - gradient * (0.1 / norm)).abs().max().item<float>(),
            1e-6f);
  EXPECT_EQ(step.step(), 1);
  EXPECT_TRUE(holds(message_of<core::DataError>([&] { step.apply_gradient(at::zeros({3})); }),
                    "3 elements"));
}

class Full : public Counting {
 public:
  void next(data::Batch& batch) override {
    Counting::next(batch);
    batch = some_batch(2, 8, 0, position());
  }
};

TEST(TrainStep, TheBatchesOfAStepRise) {
  StepOptions options;
  options.accumulate = 5;
  options.ramp_steps = 8;
  TrainStep step(small(), options);
  Full source;
  std::vector<std::int64_t> taken;
  for (int i = 0; i < 10; ++i) {
    const auto before = source.position();
    step.run(source);
    taken.push_back(source.position() - before);
  }
  EXPECT_EQ(taken, (std::vector<std::int64_t>{1, 1, 2, 2, 3, 3, 4, 4, 5, 5}));
}

TEST(TrainStep, TheLearningRateCanBeSet) {
  TrainStep step(small(), options_with("fp32", 0.1));
  step.set_lr(0.02);
  EXPECT_EQ(step.run_batches({some_batch(2, 8, 0)}).lr, 0.02);
  EXPECT_TRUE(holds(message_of<core::ConfigError>([&] { step.set_lr(-1); }), "lr is -1"));
}

TEST(TrainStep, AScheduleFreeOptimizerRefusesASchedule) {
  StepOptions options;
  options.optimizer = "schedule_free_adamw";
  const auto message = [&] {
    return message_of<core::ConfigError>([&] { TrainStep step(small(), options); });
  };
  EXPECT_TRUE(holds(message(), "schedule constant"));
  options.schedule = "constant";
  EXPECT_EQ(message(), "");
  options.ema_decay = 0.9;
  EXPECT_TRUE(holds(message(), "ema_decay"));
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
  EXPECT_TRUE(holds(message(), "\"exp_avg\" holds 3 Float values"));
  wrong["exp_avg"] = good.to(at::kDouble);
  EXPECT_TRUE(holds(message(), "Float"));
  wrong.erase("exp_avg");
  EXPECT_TRUE(holds(message(), "lacks \"exp_avg\""));
  wrong["exp_avg"] = good;
  EXPECT_TRUE(holds(message_of<core::DataError>([&] { step.load_state(wrong, -1); }), "step -1"));
  EXPECT_EQ(step.step(), 1);
  for (const auto& [name, buffer] : step.state()) EXPECT_TRUE(same_bits(buffer, own.at(name)));
}

}  // namespace
}  // namespace omnima::train

// What a training step computes: accumulation, clipping, schedule, precision, evaluation.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "omnima/optim/gradient.h"
#include "omnima/train/row_workers.h"
#include "step_fixture.h"

namespace omnima::train {
namespace {

// --- accumulation
// ---------------------------------------------------------------------------------

TEST(TrainStep, UnevenPaddedMicroBatchesEqualOneBatch) {
  auto whole = small(), parts = small();
  const data::Batch a = some_batch(2, 16, 5), b = some_batch(3, 7, 0, 11), c = some_batch(1, 11, 9);
  TrainStep one(whole, {}), several(parts, {});
  const auto first = one.run_batches({together({a, padded(b, 16), padded(c, 16)})});
  const auto second = several.run_batches({a, b, padded(c, 13)});
  EXPECT_EQ(first.tokens, 27 + 21 + 2);
  EXPECT_EQ(second.tokens, first.tokens);
  EXPECT_EQ(first.input_tokens, (2 + 3 + 1) * 16);  // also those that are no target
  EXPECT_EQ(second.input_tokens, 2 * 16 + 3 * 7 + 13);
  EXPECT_NEAR(first.loss, second.loss, 1e-6);
  EXPECT_NEAR(first.grad_norm, second.grad_norm, 1e-6);
  const at::Tensor difference =
      (whole->arena().gradients() - parts->arena().gradients()).abs().max();
  EXPECT_LE(difference.item<float>(), 1e-6f);
}

TEST(TrainStep, LossAndGradientAreThoseOfTheModel) {
  for (const bool plain : {false, true}) {
    if (plain) ::setenv("OMNIMA_REFERENCE", "1", 1);
    auto model = small(5, {{"norm", std::string("layer_norm")}, {"mlp_bias", true}});
    const data::Batch batch = some_batch(2, 8, 3);
    const auto tensor = [&](const std::vector<std::int64_t>& values) {
      at::Tensor x = at::zeros({2, 8}, at::kLong);
      std::copy(values.begin(), values.end(), x.data_ptr<std::int64_t>());
      return x;
    };
    const at::Tensor loss = model->loss(tensor(batch.input_ids), tensor(batch.labels), {});
    torch::autograd::backward({loss}, {});
    std::vector<at::Tensor> expected;
    for (auto& [name, leaf] : model->named_parameters()) {
      expected.push_back(leaf.grad().clone());
      leaf.mutable_grad() = at::Tensor();
    }
    TrainStep step(model, {});
    EXPECT_NEAR(step.run_batches({batch}).loss, loss.item<double>(), 1e-6);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const auto& parameter = model->arena().parameters()[i];
      const at::Tensor own =
          model->arena().gradients().narrow(0, parameter.offset, parameter.size());
      EXPECT_TRUE(at::allclose(own.view(parameter.sizes), expected[i], 1e-4, 1e-7))
          << parameter.name << (plain ? " on the reference" : "");
      EXPECT_FALSE(model->arena().leaf(static_cast<int64_t>(i)).grad().defined());
    }
    ::unsetenv("OMNIMA_REFERENCE");
  }
}

TEST(TrainStep, PackedDocumentsEqualRowsOfTheirOwn) {
  auto packed_model = small(), rows_model = small();
  const data::Batch rows = some_batch(2, 8, 0);
  data::Batch packed = rows;
  packed.rows = 1;
  packed.time = 16;
  for (int i = 0; i < 16; ++i) packed.segments.push_back(i / 8);
  TrainStep a(packed_model, {}), b(rows_model, {});
  EXPECT_NEAR(a.run_batches({packed}).loss, b.run_batches({rows}).loss, 1e-6);
  EXPECT_TRUE(
      at::allclose(packed_model->arena().gradients(), rows_model->arena().gradients(), 1e-4, 1e-6));
  packed.segments.clear();
  auto open_model = small();
  TrainStep open(open_model, {});
  open.run_batches({packed});
  EXPECT_FALSE(
      at::allclose(open_model->arena().gradients(), rows_model->arena().gradients(), 1e-4, 1e-6));
}

TEST(TrainStep, RowsWorkedOnSideBySideGiveTheGradientOfTheBatch) {
  const int threads = at::get_num_threads();
  data::Batch batch = some_batch(5, 8, 3);
  for (int i = 0; i < 40; ++i) batch.segments.push_back(i % 8 / 5);
  auto alone = small(), together = small();
  at::set_num_threads(1);
  TrainStep one(alone, {});
  const auto first = one.run_batches({batch});
  at::set_num_threads(3);
  TrainStep three(together, {});
  const auto second = three.run_batches({batch});
  at::set_num_threads(threads);
  EXPECT_EQ(row_workers(5, 1000, at::kCPU), std::min(threads, 5) == threads ? threads : 1);
  EXPECT_EQ(row_workers(1, 1000, at::kCPU), 1);
  EXPECT_EQ(row_workers(5, 1 << 30, at::kCPU), 1);
  EXPECT_NEAR(first.loss, second.loss, 1e-6);
  EXPECT_TRUE(at::allclose(alone->arena().gradients(), together->arena().gradients(), 1e-4, 1e-7));
}

TEST(TrainStep, RunPullsItsShareOfTheSource) {
  StepOptions options;
  options.accumulate = 3;
  auto a = small(), b = small();
  TrainStep pulled(a, options), given(b, options);
  Counting source;
  source.seek(1);
  const auto result = pulled.run(source);
  EXPECT_EQ(source.position(), 4);
  EXPECT_EQ(pulled.last_batches().size(), 3u);
  EXPECT_EQ(pulled.last_batches()[2].targets, 0);  // takes no part, and does no harm
  const auto expected = given.run_batches({some_batch(2, 8, 1, 1), some_batch(2, 8, 2, 2)});
  EXPECT_EQ(result.tokens, 29);
  EXPECT_EQ(result.loss, expected.loss);
  EXPECT_TRUE(same_bits(a->arena().weights(), b->arena().weights()));
}

// --- clipping, schedule, precision
// ----------------------------------------------------------------

// After one step exp_avg is (1 - beta1) times the clipped gradient.
TEST(TrainStep, ClipsTheGradientToItsNorm) {
  for (const double clip : {0.0, 0.01, 1e6}) {
    StepOptions options;
    options.clip_norm = clip;
    auto model = small();
    TrainStep step(model, options);
    const auto result = step.run_batches({some_batch(2, 8, 0)});
    EXPECT_GT(result.grad_norm, 0.02);
    const double used = clip == 0.01 ? 0.01 : result.grad_norm;
    EXPECT_NEAR(optim::flat_norm(step.state().at("exp_avg")), 0.1 * used, 1e-5 * used) << clip;
  }
}

TEST(TrainStep, FollowsItsScheduleAndTheProgressGiven) {
  StepOptions options;
  options.lr = 0.5;
  options.schedule = "linear";
  options.total_steps = 10;
  options.warmup_steps = 2;
  options.min_lr_ratio = 0.2;
  TrainStep step(small(), options);
  const optim::Schedule schedule{"linear", 0.5, 0.2, 2};
  for (int i = 0; i < 4; ++i) {
    EXPECT_DOUBLE_EQ(step.run_batches({some_batch(1, 8, 0)}).lr, schedule.at(i, i / 10.0));
  }
  EXPECT_EQ(step.step(), 4);
  step.set_progress(0.9);
  EXPECT_DOUBLE_EQ(step.run_batches({some_batch(1, 8, 0)}).lr, schedule.at(4, 0.9));
  options.total_steps = 0;
  TrainStep open(small(), options);
  open.run_batches({some_batch(1, 8, 0)});
  EXPECT_DOUBLE_EQ(open.run_batches({some_batch(1, 8, 0)}).lr, 0.5);
}

// Updates far below bfloat16's steps must not be lost: the masters are float32.
TEST(TrainStep, Bfloat16KeepsFloat32Masters) {
  auto model = small();
  StepOptions options = options_with("bf16", 1e-6);
  options.weight_decay = 0;
  TrainStep step(model, options);
  const at::Tensor before = model->arena().weights().clone();
  for (int i = 0; i < 10; ++i) step.run_batches({some_batch(2, 16, 0)});
  const at::Tensor moved = (model->arena().weights() - before).abs();
  EXPECT_EQ(model->arena().weights().scalar_type(), at::kFloat);
  EXPECT_NEAR(moved.median().item<float>(), 1e-5, 3e-6);
  EXPECT_TRUE(at::equal(model->arena().shadow(), model->arena().weights().to(at::kBFloat16)));
}

TEST(TrainStep, Bfloat16StaysNearFloat32) {
  auto wide = small(), narrow = small();
  TrainStep a(wide, options_with("fp32")), b(narrow, options_with("bf16"));
  for (int i = 0; i < 5; ++i) {
    const auto batch = some_batch(3, 16, i, i);
    EXPECT_NEAR(a.run_batches({batch}).loss, b.run_batches({batch}).loss, 0.02);
  }
}

TEST(TrainStep, LearnsARepeatedBatchInBothPrecisions) {
  for (const char* precision : {"fp32", "bf16"}) {
    TrainStep step(small(), options_with(precision, 1e-2));
    const data::Batch batch = some_batch(2, 16, 0);
    const double before = step.run_batches({batch}).loss;
    for (int i = 0; i < 60; ++i) step.run_batches({batch});
    EXPECT_LT(step.run_batches({batch}).loss, 0.3 * before) << precision;
  }
}

TEST(TrainStep, DropoutFollowsItsSeed) {
  const auto weights = [](std::int64_t seed, double dropout) {
    auto model = small(5, {{"dropout", dropout}});
    StepOptions options;
    options.seed = seed;
    TrainStep step(model, options);
    for (int i = 0; i < 3; ++i) step.run_batches({some_batch(2, 8, 0), some_batch(1, 8, 0)});
    return model->arena().weights();
  };
  EXPECT_TRUE(same_bits(weights(1, 0.2), weights(1, 0.2)));
  EXPECT_FALSE(same_bits(weights(1, 0.2), weights(2, 0.2)));
  EXPECT_TRUE(same_bits(weights(1, 0.0), weights(2, 0.0)));
}

// --- evaluation and timing
// ------------------------------------------------------------------------

// Blocks that compute twice draw the same masks and give the same bits, on any number of workers.
TEST(TrainStep, CheckpointedBlocksGiveTheSameBits) {
  for (const bool plain : {false, true}) {
    if (plain) ::setenv("OMNIMA_REFERENCE", "1", 1);
    for (const std::string precision : {"fp32", "bf16"}) {
      for (const double dropout : {0.0, 0.2}) {
        std::vector<at::Tensor> weights;
        for (const std::int64_t layers : {0, 1, 2, 9}) {
          auto model = small(5, {{"dropout", dropout}, {"attention_bias", true}});
          StepOptions options = options_with(precision);
          options.checkpoint_layers = layers;
          TrainStep step(model, options);
          for (int i = 0; i < 3; ++i) step.run_batches({some_batch(4, 16, i), some_batch(1, 9, 2)});
          weights.push_back(model->arena().weights());
        }
        for (const auto& each : weights) EXPECT_TRUE(same_bits(each, weights[0]));
      }
    }
    ::unsetenv("OMNIMA_REFERENCE");
  }
}

// Also where blocks are left out or read a bias that all of them share.
TEST(TrainStep, CheckpointedBlocksOfEveryKindGiveTheSameBits) {
  const std::map<std::string, core::FieldValue> kinds[] = {
      {{"positions", std::string("relative")}, {"attention_dropout", 0.2}},
      {{"num_experts", std::int64_t{4}}, {"expert_capacity", 1.0}, {"layer_drop", 0.4}},
      {{"num_experts", std::int64_t{4}}, {"decoder_sparse_step", std::int64_t{2}}},
      {{"layer_drop", 0.4}, {"parallel_residual", true}, {"qk_norm", true}}};
  for (const auto& kind : kinds) {
    std::vector<at::Tensor> weights;
    for (const std::int64_t layers : {0, 1, 9}) {
      auto model = small(5, kind);
      StepOptions options = options_with("bf16");
      options.checkpoint_layers = layers;
      TrainStep step(model, options);
      for (int i = 0; i < 3; ++i) step.run_batches({some_batch(4, 16, i)});
      weights.push_back(model->arena().weights());
    }
    for (const auto& each : weights) EXPECT_TRUE(same_bits(each, weights[0]));
  }
}

// Terms of the loss are for training: what evaluation says stays comparable.
TEST(TrainStep, LossTermsAreTheReferencesAndNotEvaluations) {
  StepOptions options = options_with("fp32");
  options.label_smoothing = 0.2;
  options.z_loss = 0.05;
  const data::Batch batch = some_batch(3, 16, 4);
  TrainStep fast(small(), options), plain(small(), options), without(small(), options_with("fp32"));
  const auto result = fast.run_batches({batch});
  ::setenv("OMNIMA_REFERENCE", "1", 1);
  const auto expected = plain.run_batches({batch});
  ::unsetenv("OMNIMA_REFERENCE");
  EXPECT_NEAR(result.loss, expected.loss, 1e-5);
  EXPECT_NEAR(result.grad_norm, expected.grad_norm, 1e-5);
  EXPECT_GT(std::abs(result.loss - without.run_batches({batch}).loss), 0.01);
  Counting one, other;
  auto model = small();
  EXPECT_EQ(TrainStep(model, options).evaluate(one, 2).first,
            TrainStep(model, options_with("fp32")).evaluate(other, 2).first);
}

// The routers' losses are in the gradient and reported apart; loss and evaluation are plain.
TEST(TrainStep, RoutersLossesAreInTheGradientAlone) {
  const std::map<std::string, core::FieldValue> fields{{"num_experts", std::int64_t{4}},
                                                       {"initializer_range", 0.3},
                                                       {"expert_capacity", 1.0},
                                                       {"router_aux_loss_coef", 0.5},
                                                       {"router_z_loss_coef", 0.25}};
  for (const bool plain : {false, true}) {
    if (plain) ::setenv("OMNIMA_REFERENCE", "1", 1);
    auto model = small(5, fields);
    const data::Batch batch = some_batch(1, 20, 3);  // one row: a slice of its own
    at::Tensor ids = at::zeros({1, 20}, at::kLong), labels = at::zeros({1, 20}, at::kLong);
    std::copy(batch.input_ids.begin(), batch.input_ids.end(), ids.data_ptr<std::int64_t>());
    std::copy(batch.labels.begin(), batch.labels.end(), labels.data_ptr<std::int64_t>());
    models::Decoder::LossOptions how;
    how.scale = 1.0 / 17;
    how.training = true;
    const double words = model->losses(ids, labels, {}, how).words.item<double>();
    const at::Tensor whole = model->loss(ids, labels, {}, true);
    torch::autograd::backward({whole}, {});
    std::vector<at::Tensor> expected;
    for (auto& [name, leaf] : model->named_parameters()) {
      expected.push_back(leaf.grad().clone());
      leaf.mutable_grad() = at::Tensor();
    }
    StepOptions options = options_with("fp32");
    options.checkpoint_layers = 1;
    TrainStep step(model, options);
    const StepResult result = step.run_batches({batch});
    EXPECT_NEAR(result.loss, words, 1e-6);
    EXPECT_GE(result.balance_loss, 1.0);
    EXPECT_GT(result.router_z_loss, 0.0);
    EXPECT_NEAR(whole.item<double>(),
                words + 0.5 * result.balance_loss + 0.25 * result.router_z_loss, 1e-5);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const auto& parameter = model->arena().parameters()[i];
      const at::Tensor own =
          model->arena().gradients().narrow(0, parameter.offset, parameter.size());
      EXPECT_TRUE(at::allclose(own.view(parameter.sizes), expected[i], 1e-4, 1e-6))
          << parameter.name;
    }
    ::unsetenv("OMNIMA_REFERENCE");
  }
}

// Several workers and batches: reported means weigh by target tokens; nothing without experts.
TEST(TrainStep, RoutersLossesAreMeansOverTheStep) {
  auto model = small(5, {{"num_experts", std::int64_t{4}}});
  TrainStep step(model, options_with("bf16"));
  const StepResult result =
      step.run_batches({some_batch(4, 16, 0), some_batch(2, 9, 18), some_batch(1, 9, 2)});
  EXPECT_NEAR(result.balance_loss, 2.0, 0.5);  // 2 experts a token where all are alike
  EXPECT_NEAR(result.router_z_loss, std::pow(std::log(4.0), 2), 0.2);
  TrainStep dense(small(), options_with("bf16"));
  EXPECT_EQ(dense.run_batches({some_batch(4, 16, 0)}).balance_loss, 0);
}

TEST(TrainStep, EvaluateSumsLossesAndChangesNothing) {
  for (const char* precision : {"fp32", "bf16"}) {
    auto model = small(5, {{"dropout", 0.5}});  // evaluation does not drop
    TrainStep step(model, options_with(precision));
    const at::Tensor before = model->arena().weights().clone();
    Counting source;
    source.seek(2);
    const auto [loss, tokens] = step.evaluate(source, 3);
    EXPECT_EQ(source.position(), 5);
    EXPECT_EQ(tokens, 14 + 0 + 12);
    double expected = 0;
    for (const auto& batch : {some_batch(2, 8, 2, 2), some_batch(2, 8, 4, 4)}) {
      at::Tensor ids = at::zeros({2, 8}, at::kLong), labels = at::zeros({2, 8}, at::kLong);
      std::copy(batch.input_ids.begin(), batch.input_ids.end(), ids.data_ptr<std::int64_t>());
      std::copy(batch.labels.begin(), batch.labels.end(), labels.data_ptr<std::int64_t>());
      expected += model->loss(ids, labels, {}).item<double>() * static_cast<double>(batch.targets);
    }
    EXPECT_NEAR(loss, expected, (precision == std::string("fp32") ? 1e-5 : 5e-3) * expected);
    EXPECT_TRUE(same_bits(before, model->arena().weights()));
    EXPECT_EQ(step.step(), 0);
  }
}

TEST(TrainStep, TimingAPassLeavesTheWeights) {
  auto model = small();
  TrainStep step(model, {});
  const at::Tensor before = model->arena().weights().clone();
  EXPECT_GT(step.time_pass(some_batch(2, 16, 0), 3), 0.0);
  EXPECT_TRUE(same_bits(before, model->arena().weights()));
  EXPECT_EQ(step.step(), 0);
  EXPECT_TRUE(holds(message_of<core::ConfigError>([&] { step.time_pass(some_batch(2, 8, 0), 0); }),
                    "repeats"));
}

TEST(TrainStep, TimingAnUpdateLeavesTheWeightsAndTheirCopies) {
  for (const std::string name : {"adamw", "muon", "schedule_free_adamw"}) {
    auto model = small();
    StepOptions options;
    options.optimizer = name;
    options.precision = "bf16";
    if (name == "schedule_free_adamw") options.schedule = "constant";
    TrainStep step(model, options);
    step.time_pass(some_batch(2, 16, 0), 1);
    const at::Tensor before = model->arena().weights().clone();
    EXPECT_GT(step.time_update(2), 0.0) << name;
    EXPECT_TRUE(same_bits(before, model->arena().weights())) << name;
    model->arena().shadow();
    EXPECT_TRUE(
        same_bits(before.to(at::kBFloat16).to(at::kFloat), model->arena().shadow().to(at::kFloat)))
        << name;
    EXPECT_EQ(step.step(), 0);
    EXPECT_TRUE(holds(message_of<core::ConfigError>([&] { step.time_update(0); }), "repeats"));
  }
}

}  // namespace
}  // namespace omnima::train

// fp16: the factor of the loss, steps that overflow, and what a checkpoint keeps of them.
#include "omnima/train/loss_scale.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/ones_like.h>

#include <cmath>
#include <limits>

#include "step_fixture.h"

namespace omnima::train {
namespace {

TEST(LossScale, HalvesOnOverflowAndDoublesAfterEnoughSteps) {
  LossScale scale(8, 2);
  const auto after = [&](bool finite) {
    scale.take_in(finite);
    return scale.value();
  };
  EXPECT_EQ(after(true), 8);
  EXPECT_EQ(after(true), 16);
  EXPECT_EQ(after(true), 16);
  EXPECT_EQ(after(false), 8);
  EXPECT_EQ(after(true), 8);  // the count began anew
  EXPECT_EQ(after(true), 16);
  EXPECT_EQ(scale.skipped(), 1);
}

TEST(LossScale, StopsBeforeFloat32Ends) {
  LossScale scale(0x1p127, 1);
  scale.take_in(true);
  EXPECT_EQ(scale.value(), 0x1p127);
}

TEST(LossScale, AStepInFloat16IsCloseToFloat32) {
  auto exact = small(), half = small();
  TrainStep one(exact, options_with("fp32")), two(half, options_with("fp16"));
  for (std::int64_t i = 0; i < 4; ++i) {
    const std::vector<data::Batch> batches{some_batch(4, 16, 3, i), some_batch(4, 16, 0, i + 9)};
    const StepResult a = one.run_batches(batches), b = two.run_batches(batches);
    EXPECT_NEAR(b.loss, a.loss, 2e-3 * a.loss);
    EXPECT_NEAR(b.grad_norm, a.grad_norm, 2e-2 * a.grad_norm);
    EXPECT_EQ(a.loss_scale, 0);
    EXPECT_EQ(b.loss_scale, 65536);
    EXPECT_FALSE(b.skipped);
  }
  Counting source;
  const auto [loss, tokens] = two.evaluate(source, 2);
  source.seek(0);
  const auto [wanted, same] = one.evaluate(source, 2);
  EXPECT_EQ(tokens, same);
  EXPECT_NEAR(loss, wanted, 1e-2 * wanted);
}

TEST(LossScale, AnOverflowSkipsTheUpdateAndAllThatCountsUpdates) {
  StepOptions options = options_with("fp16");
  options.ema_decay = 0.9;
  auto with = small(), without = small();
  TrainStep skips(with, options), plain(without, options);
  const at::Tensor gradient = at::ones_like(with->arena().weights()).mul(1e-3);
  const at::Tensor before = with->arena().weights().clone();
  const StepResult result = skips.apply_gradient(at::full_like(gradient, INFINITY));
  EXPECT_TRUE(result.skipped);
  EXPECT_EQ(skips.step(), 1);
  EXPECT_TRUE(same_bits(with->arena().weights(), before));
  EXPECT_EQ(skips.apply_gradient(gradient).loss_scale, 32768);
  plain.apply_gradient(gradient);
  EXPECT_TRUE(same_bits(with->arena().weights(), without->arena().weights()));
  EXPECT_TRUE(same_bits(skips.state().at("ema"), plain.state().at("ema")));
}

TEST(LossScale, TravelsWithTheState) {
  auto model = small(), other = small(9);
  TrainStep one(model, options_with("fp16")), two(other, options_with("fp16"));
  const at::Tensor gradient = at::ones_like(model->arena().weights()).mul(1e-3);
  one.apply_gradient(at::full_like(gradient, std::numeric_limits<float>::quiet_NaN()));
  one.apply_gradient(gradient);
  two.load_state(one.state(), one.step());
  EXPECT_EQ(one.apply_gradient(gradient).loss_scale, two.apply_gradient(gradient).loss_scale);
  EXPECT_TRUE(same_bits(model->arena().weights(), other->arena().weights()));
}

TEST(LossScale, AGradientThatNeverFitsStopsTheRun) {
  StepOptions options = options_with("fp16");
  options.loss_scale = 0x1p-13;
  auto model = small();
  TrainStep step(model, options);
  const at::Tensor bad = at::full_like(model->arena().weights(), INFINITY);
  EXPECT_TRUE(step.apply_gradient(bad).skipped);
  EXPECT_TRUE(holds(message_of<core::NonFiniteError>([&] { step.apply_gradient(bad); }),
                    "The gradient of step 2 is not finite"));
  EXPECT_TRUE(holds(message_of<core::ConfigError>([] {
                      StepOptions wrong = options_with("fp16");
                      wrong.loss_scale = 0;
                      wrong.check();
                    }),
                    "loss_scale"));
}

// Every option of the decoder that has a path of its own.
TEST(LossScale, EveryKindOfLayerRunsInFloat16) {
  const std::vector<Changes> kinds{
      {{"norm", std::string("layer_norm")},
       {"activation", std::string("gelu_tanh")},
       {"positions", std::string("learned")},
       {"attention_bias", true},
       {"mlp_bias", true}},
      {{"qk_norm", true}, {"sliding_window", std::int64_t{5}}, {"logit_softcap", 20.0}},
      {{"positions", std::string("relative")}, {"dropout", 0.1}, {"attention_dropout", 0.1}},
      {{"positions", std::string("alibi")}, {"activation", std::string("relu2")}},
      {{"blocksparse_block_size", std::int64_t{2}},
       {"blocksparse_num_local_blocks", std::int64_t{1}},
       {"blocksparse_vert_stride", std::int64_t{3}}},
      {{"num_experts", std::int64_t{4}},
       {"shared_expert_intermediate_size", std::int64_t{16}},
       {"expert_capacity", 1.25}},
      {{"num_experts", std::int64_t{5}}, {"activation", std::string("gelu")}},
      {{"causal", false}, {"activation", std::string("geglu")}}};
  for (const auto& kind : kinds) {
    TrainStep exact(small(5, kind), options_with("fp32")),
        half(small(5, kind), options_with("fp16"));
    const auto batch = some_batch(2, 12, 0);
    const double wanted = exact.run_batches({batch}).loss;
    EXPECT_NEAR(half.run_batches({batch}).loss, wanted, 5e-3 * wanted) << kind.begin()->first;
  }
}

}  // namespace
}  // namespace omnima::train

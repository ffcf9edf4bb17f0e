// Parameters that are frozen: the others learn as before, and no gradient is made for these.
#include <ATen/TensorOperators.h>

#include <algorithm>

#include "step_fixture.h"

namespace omnima::train {
namespace {

StepOptions freezing(const std::vector<std::string>& freeze) {
  StepOptions options = options_with("fp32");
  options.clip_norm = 0;
  options.freeze = freeze;
  return options;
}

at::Tensor part(const std::shared_ptr<Decoder>& model, const at::Tensor& flat,
                const std::string& name) {
  for (const auto& each : model->arena().parameters()) {
    if (each.name == name) return flat.narrow(0, each.offset, each.size());
  }
  return {};
}

TEST(Frozen, TheOthersMoveAsIfNothingWereFrozen) {
  const std::vector<std::vector<std::string>> rules{
      {"model.layers.0.*"}, {"*embed*"},         {"*embed*", "model.layers.0.*"},
      {"*q_proj*"},         {"*mlp*", "*norm*"},
  };
  for (const std::int64_t checkpoint : {0, 2}) {
    for (const auto& rule : rules) {
      auto frozen = small(), free = small();
      StepOptions options = freezing(rule);
      options.checkpoint_layers = checkpoint;
      TrainStep one(frozen, options), two(free, freezing({}));
      const auto batch = some_batch(4, 12, 2);
      EXPECT_EQ(one.run_batches({batch}).loss, two.run_batches({batch}).loss);
      const auto before = small();
      for (const auto& each : frozen->arena().parameters()) {
        const bool rests = std::any_of(rule.begin(), rule.end(), [&](const auto& pattern) {
          return optim::matches(pattern, each.name);
        });
        const auto& wanted = (rests ? before : free)->arena().weights();
        EXPECT_TRUE(same_bits(part(frozen, frozen->arena().weights(), each.name),
                              part(frozen, wanted, each.name)))
            << each.name << " with " << rule.front() << " and " << checkpoint;
      }
    }
  }
}

TEST(Frozen, WhatIsFrozenForSomeStepsLearnsAfterThem) {
  auto model = small();
  TrainStep step(model, freezing({"*@-2"}));
  const auto batch = some_batch(2, 12, 0);
  const at::Tensor before = model->arena().weights().clone();
  for (int i = 0; i < 2; ++i) {
    const StepResult result = step.run_batches({batch});
    EXPECT_EQ(result.grad_norm, 0);
    EXPECT_GT(result.loss, 0);
  }
  EXPECT_TRUE(same_bits(model->arena().weights(), before));
  EXPECT_GT(step.run_batches({batch}).grad_norm, 0);
  EXPECT_FALSE(same_bits(model->arena().weights(), before));
}

}  // namespace
}  // namespace omnima::train

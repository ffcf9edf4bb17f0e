// TrainStep's step where the model's device runs whole steps: the numbers go there, the verdict
// comes back.
#include <cmath>

#include "omnima/core/mix.h"
#include "omnima/train/step.h"

namespace omnima::train {

StepResult TrainStep::run_on_device(StepResult result) {
  StepNumbers numbers{step_ + 1, result.tokens, result.lr, {}};
  const auto base =
      core::mix(static_cast<std::uint64_t>(options_.seed), static_cast<std::uint64_t>(step_));
  for (std::size_t i = 0; i < batches_.size(); ++i) {
    numbers.dropout_seeds.push_back(core::mix(core::mix(base, i), 0));
  }
  const auto lookahead = [this](std::vector<data::Batch>& ahead) {
    return source_ != nullptr && source_->peek(batches_.size(), ahead);
  };
  const DeviceOutcome outcome = device_step_->run(batches_, numbers, lookahead);
  require_finite_loss(outcome.loss);
  require_finite_gradient(outcome.grad_norm, outcome.loss);
  ++step_;
  averaged_.take_in(step_);
  result.loss = outcome.loss;
  result.grad_norm = outcome.grad_norm;
  return result;
}

}  // namespace omnima::train

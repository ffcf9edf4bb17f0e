// Schedule-Free AdamW (Defazio et al. 2024, "The Road Less Scheduled", algorithm 1): no schedule is
// needed, because an average x of the points z is what is evaluated and saved. The model holds
// y = (1 - beta1) z + beta1 x, where gradients are taken.
#pragma once

#include "omnima/optim/optimizer.h"

namespace omnima::optim {

class ScheduleFreeAdamw final : public Optimizer {
 public:
  ScheduleFreeAdamw(nn::Arena& arena, const OptimizerOptions& options);
  void update(std::int64_t step, double lr, double grad_scale, bool with_shadow) override;
  Buffers state() const override;
  bool averages() const override { return true; }
  at::Tensor averaged_weights() const override;

 private:
  at::Tensor base_, exp_avg_sq_;
  at::Tensor average_;  // float64: the sum of the points' weights, the highest learning rate so far
};

}  // namespace omnima::optim

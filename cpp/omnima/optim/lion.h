// Lion (Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", algorithm 2): every
// weight moves by the learning rate, in the direction of a mean of gradients. It wants a learning
// rate of a third to a tenth of AdamW's, and beta2 0.99.
#pragma once

#include "omnima/optim/optimizer.h"

namespace omnima::optim {

class Lion final : public Optimizer {
 public:
  Lion(nn::Arena& arena, const OptimizerOptions& options)
      : Optimizer(arena, options), exp_avg_(zeros_like_arena()) {}
  void update(std::int64_t step, double lr, double grad_scale, bool with_shadow) override;
  Buffers state() const override { return {{"exp_avg", exp_avg_}}; }

 private:
  at::Tensor exp_avg_;
};

}  // namespace omnima::optim

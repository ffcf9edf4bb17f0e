// Stochastic gradient descent with momentum, as torch.optim.SGD: the decay is part of the gradient.
#pragma once

#include "omnima/optim/optimizer.h"

namespace omnima::optim {

class Sgd final : public Optimizer {
 public:
  Sgd(nn::Arena& arena, const OptimizerOptions& options)
      : Optimizer(arena, options), momentum_(zeros_like_arena()) {}
  void update(std::int64_t step, double lr, double grad_scale, bool with_shadow) override;
  Buffers state() const override { return {{"momentum", momentum_}}; }

 private:
  at::Tensor momentum_;
};

}  // namespace omnima::optim

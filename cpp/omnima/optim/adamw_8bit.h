// AdamW whose two moments take 2 bytes a parameter instead of 8 (after Dettmers et al. 2022, "8-bit
// Optimizers via Block-wise Quantization"): blocks of 256 elements share a scale; within a block
// the numbers are small floats, rounded at random so that slow changes are not lost.
#pragma once

#include "omnima/optim/optimizer.h"

namespace omnima::optim {

class Adamw8bit final : public Optimizer {
 public:
  Adamw8bit(nn::Arena& arena, const OptimizerOptions& options);
  void update(std::int64_t step, double lr, double grad_scale, bool with_shadow) override;
  Buffers state() const override;

 private:
  std::vector<int64_t> first_block_;  // of each parameter: a block never spans two of them
  at::Tensor mean_, root_;            // uint8, see kernels::Moments8bit
  at::Tensor mean_scale_, root_scale_;
};

}  // namespace omnima::optim

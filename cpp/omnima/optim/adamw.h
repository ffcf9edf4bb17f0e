// AdamW (Loshchilov and Hutter 2019) over the arena: one pass over weights, gradients and state.
#pragma once

#include "omnima/kernels/cpu/adamw.h"
#include "omnima/optim/optimizer.h"

namespace omnima::optim {

class Adamw final : public Optimizer {
 public:
  Adamw(nn::Arena& arena, const OptimizerOptions& options);
  void update(std::int64_t step, double lr, double grad_scale, bool with_shadow) override;
  Buffers state() const override;
  const at::Tensor& exp_avg() const { return exp_avg_; }
  const at::Tensor& exp_avg_sq() const { return exp_avg_sq_; }

 private:
  at::Tensor exp_avg_, exp_avg_sq_;
};

// The numbers of a step; lr and weight decay are the span's to say.
kernels::AdamwConstants adamw_constants(const OptimizerOptions& options, std::int64_t step,
                                        double grad_scale);

// The update of one span of the arena, whose moments lie in buffers of their own, of the span's
// size. `shadow` is the arena's bfloat16 copy or null.
void adamw_span(nn::Arena& arena, const Span& span, const at::Tensor& exp_avg,
                const at::Tensor& exp_avg_sq, kernels::bfloat16* shadow, double lr,
                kernels::AdamwConstants constants);

}  // namespace omnima::optim

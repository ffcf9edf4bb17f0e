// AdamW (Loshchilov and Hutter 2019) over the arena: one pass over weights, gradients and state.
#pragma once

#include <ATen/core/Tensor.h>

#include "omnima/nn/arena.h"

namespace omnima::optim {

struct AdamwOptions {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;  // on matrices only
};

class Adamw {
 public:
  Adamw(nn::Arena& arena, const AdamwOptions& options);
  // step counts from 1. Writes the bfloat16 copy in the same pass when `with_shadow`.
  void update(std::int64_t step, double lr, double grad_scale, bool with_shadow);
  const at::Tensor& exp_avg() const { return exp_avg_; }
  const at::Tensor& exp_avg_sq() const { return exp_avg_sq_; }

 private:
  nn::Arena& arena_;
  AdamwOptions options_;
  at::Tensor exp_avg_, exp_avg_sq_;
};

// The 2-norm of a flat float32 buffer; not finite when any element is not.
double flat_norm(const at::Tensor& flat);

}  // namespace omnima::optim

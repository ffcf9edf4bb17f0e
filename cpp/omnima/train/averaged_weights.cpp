#include "omnima/train/averaged_weights.h"

#include <algorithm>

#include "omnima/core/scope.h"

namespace omnima::train {

AveragedWeights::AveragedWeights(nn::Arena& arena, double decay) : arena_(arena), decay_(decay) {
  if (decay > 0) mean_ = arena.weights().clone();
}

void AveragedWeights::take_in(std::int64_t step) {
  if (!mean_.defined()) return;
  const core::Scope scope("weights.mean", 0, 12.0 * static_cast<double>(arena_.size()));
  const double keep =
      std::min(decay_, static_cast<double>(1 + step) / static_cast<double>(10 + step));
  mean_.lerp_(arena_.weights(), 1.0 - keep);
}

// Tensor operations count up the version of the buffer, so that its bfloat16 copy is seen as old.
void AveragedWeights::show(const at::Tensor& weights) {
  restore();
  at::Tensor kept = arena_.weights().clone();
  at::Tensor(arena_.weights()).copy_(weights);
  trained_ = kept;
}

void AveragedWeights::restore() {
  if (!shows()) return;
  at::Tensor(arena_.weights()).copy_(trained_);
  trained_ = at::Tensor();
}

}  // namespace omnima::train

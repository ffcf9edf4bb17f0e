// Dynamic loss scaling (Micikevicius et al. 2018, "Mixed precision training"): float16 gradients
// are taken of a loss so many times as large, so that small ones do not vanish. An overflow halves
// the factor and skips the step; many steps without one double it, as torch.amp.GradScaler does.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace omnima::train {

class LossScale {
 public:
  LossScale(double first, std::int64_t growth_interval);

  double value() const { return at(0); }
  std::int64_t skipped() const { return static_cast<std::int64_t>(at(2)); }
  // Takes in whether a step's gradient was finite.
  void take_in(bool finite);
  // float64 [3]: the factor, steps since it changed, steps skipped; the buffer itself.
  const at::Tensor& state() const { return state_; }

 private:
  double& at(int place) const { return state_.data_ptr<double>()[place]; }

  std::int64_t growth_interval_;
  at::Tensor state_;
};

}  // namespace omnima::train

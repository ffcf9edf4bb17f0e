// The learning rate as a function of the fraction of the run that is done.
#pragma once

#include <cstdint>
#include <string>

namespace omnima::optim {

struct Schedule {
  std::string name = "cosine";  // constant | linear | cosine
  double lr = 1e-3;
  double min_lr_ratio = 0.1;  // of lr, where linear and cosine end
  std::int64_t warmup_steps = 0;

  void check() const;
  // step counts from 0; progress in [0, 1] is the fraction of the run done before the step.
  double at(std::int64_t step, double progress) const;
};

}  // namespace omnima::optim

// The learning rate as a function of the fraction of the run that is done.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace omnima::optim {

struct Schedule {
  std::string name = "cosine";  // one of schedule_names()
  double lr = 1e-3;
  double min_lr_ratio = 0.1;  // of lr, where a falling schedule ends
  std::int64_t warmup_steps = 0;
  std::int64_t cycles = 4;    // cosine_restarts: in the run
  double cycle_growth = 1.0;  // cosine_restarts: length of a cycle by that of the one before
  std::int64_t stages = 3;    // step: of equal length
  double stage_factor = 0.1;  // step: from one stage to the next
  double decay_share = 0.2;   // warmup_stable_decay: last part of the run, in which lr falls
  double rise_share = 0.3;    // one_cycle: first part of the run, in which lr rises

  void check() const;
  // step counts from 0; progress in [0, 1] is the fraction of the run done before the step.
  double at(std::int64_t step, double progress) const;
};

std::vector<std::string> schedule_names();

}  // namespace omnima::optim

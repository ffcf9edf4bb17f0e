#include "omnima/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "omnima/core/error.h"
#include "omnima/core/field.h"

namespace omnima::optim {

void Schedule::check() const {
  core::check_field({"schedule",
                     std::string("cosine"),
                     "learning-rate schedule",
                     0,
                     0,
                     {"constant", "linear", "cosine"}},
                    name);
  core::check_field({"lr", 1e-3, "learning rate", 0, 10}, lr);
  core::check_field({"min_lr_ratio", 0.1, "share of lr where the schedule ends", 0, 1},
                    min_lr_ratio);
  core::check_field({"warmup_steps", std::int64_t{0}, "steps of linear rise", 0, 1e9},
                    warmup_steps);
}

double Schedule::at(std::int64_t step, double progress) const {
  const double warm =
      warmup_steps > 0
          ? std::min(1.0, static_cast<double>(step + 1) / static_cast<double>(warmup_steps))
          : 1.0;
  const double done = std::clamp(progress, 0.0, 1.0);
  double share = 1.0;
  if (name == "linear") share = 1.0 - (1.0 - min_lr_ratio) * done;
  if (name == "cosine") {
    share = min_lr_ratio + (1.0 - min_lr_ratio) * 0.5 * (1.0 + std::cos(std::numbers::pi * done));
  }
  return lr * warm * share;
}

}  // namespace omnima::optim

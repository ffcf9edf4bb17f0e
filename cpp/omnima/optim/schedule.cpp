#include "omnima/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "omnima/core/error.h"
#include "omnima/core/field.h"

namespace omnima::optim {
namespace {

// Falls from `high` to `low` along half a cosine while `done` goes from 0 to 1.
double along_cosine(double high, double low, double done) {
  return low + (high - low) * 0.5 * (1.0 + std::cos(std::numbers::pi * done));
}

// Each schedule: the share of lr at a step, counted from 0, and a fraction of the run.

double constant(const Schedule&, std::int64_t, double) { return 1.0; }

double linear(const Schedule& s, std::int64_t, double done) {
  return 1.0 - (1.0 - s.min_lr_ratio) * done;
}

double cosine(const Schedule& s, std::int64_t, double done) {
  return along_cosine(1.0, s.min_lr_ratio, done);
}

// Loshchilov and Hutter 2017 (SGDR): a cosine that starts again, each time for longer.
double cosine_restarts(const Schedule& s, std::int64_t, double done) {
  double all = 0, length = 1;
  for (std::int64_t i = 0; i < s.cycles; ++i, length *= s.cycle_growth) all += length;
  double at = done * all;
  length = 1;
  for (std::int64_t i = 0; i + 1 < s.cycles && at >= length; ++i, length *= s.cycle_growth) {
    at -= length;
  }
  return along_cosine(1.0, s.min_lr_ratio, std::min(1.0, at / length));
}

double step_down(const Schedule& s, std::int64_t, double done) {
  const auto stages = static_cast<double>(s.stages);
  return std::pow(s.stage_factor, std::min(stages - 1.0, std::floor(done * stages)));
}

// Vaswani et al. 2017, with 1 where the warmup ends.
double inverse_sqrt(const Schedule& s, std::int64_t step, double) {
  const double warm = static_cast<double>(std::max<std::int64_t>(1, s.warmup_steps));
  return std::sqrt(warm / std::max(warm, static_cast<double>(step + 1)));
}

// Hu et al. 2024 (MiniCPM); falls as 1 - sqrt, which Hägele et al. 2024 found best.
double warmup_stable_decay(const Schedule& s, std::int64_t, double done) {
  const double fallen = std::max(0.0, (done - (1.0 - s.decay_share)) / s.decay_share);
  return 1.0 - (1.0 - s.min_lr_ratio) * std::sqrt(fallen);
}

// Smith and Topin 2018, with cosines: up from lr / 25, then down to the end.
double one_cycle(const Schedule& s, std::int64_t, double done) {
  constexpr double kStart = 1.0 / 25.0;
  if (done < s.rise_share) return along_cosine(kStart, 1.0, done / s.rise_share);
  return along_cosine(1.0, s.min_lr_ratio, (done - s.rise_share) / (1.0 - s.rise_share));
}

struct Entry {
  const char* name;
  double (*share)(const Schedule&, std::int64_t, double);
};

// A new schedule is a function above and a line here.
constexpr Entry kSchedules[] = {
    {"constant", constant},
    {"linear", linear},
    {"cosine", cosine},
    {"cosine_restarts", cosine_restarts},
    {"step", step_down},
    {"inverse_sqrt", inverse_sqrt},
    {"warmup_stable_decay", warmup_stable_decay},
    {"one_cycle", one_cycle},
};

}  // namespace

std::vector<std::string> schedule_names() {
  std::vector<std::string> names;
  for (const auto& entry : kSchedules) names.emplace_back(entry.name);
  return names;
}

void Schedule::check() const {
  using core::check_field;
  check_field({"schedule", std::string("cosine"), "learning-rate schedule", 0, 0, schedule_names()},
              name);
  check_field({"lr", 1e-3, "learning rate", 0, 10}, lr);
  check_field({"min_lr_ratio", 0.1, "share of lr where the schedule ends", 0, 1}, min_lr_ratio);
  check_field({"warmup_steps", std::int64_t{0}, "steps of linear rise", 0, 1e9}, warmup_steps);
  check_field({"cycles", std::int64_t{4}, "cycles in the run", 1, 1000}, cycles);
  check_field({"cycle_growth", 1.0, "length of a cycle by that of the one before", 1, 10},
              cycle_growth);
  check_field({"stages", std::int64_t{3}, "stages of equal length", 1, 1000}, stages);
  check_field({"stage_factor", 0.1, "learning rate of a stage by that of the one before", 0, 1},
              stage_factor);
  check_field({"decay_share", 0.2, "last part of the run, in which lr falls", 0.001, 1},
              decay_share);
  check_field({"rise_share", 0.3, "first part of the run, in which lr rises", 0.001, 0.999},
              rise_share);
}

double Schedule::at(std::int64_t step, double progress) const {
  const double warm =
      warmup_steps > 0
          ? std::min(1.0, static_cast<double>(step + 1) / static_cast<double>(warmup_steps))
          : 1.0;
  const double done = std::clamp(progress, 0.0, 1.0);
  double share = 1.0;
  for (const auto& entry : kSchedules) {
    if (name == entry.name) share = entry.share(*this, step, done);
  }
  return lr * warm * share;
}

}  // namespace omnima::optim

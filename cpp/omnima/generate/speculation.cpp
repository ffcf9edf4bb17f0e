// The size of proposals.
#include "omnima/generate/speculation.h"

#include <algorithm>

namespace omnima::generate {
namespace {

constexpr std::int64_t kLongestPause = 32;  // steps
constexpr double kOfARow = 0.05;            // of a step: a row more, before it is measured
constexpr double kNew = 0.25;               // weight of a new measurement
constexpr double kFaded = 0.85;             // weight of guesses a step ago

}  // namespace

void Pace::learn(std::int64_t rows, double seconds) {
  const auto at = static_cast<std::size_t>(rows);
  if (at >= seconds_.size()) seconds_.resize(at + 1);
  double& known = seconds_[at];
  // A step that something else held up counts as a slow one, no more.
  known = known == 0 ? seconds : known + kNew * (std::min(seconds, 2 * known) - known);
}

double Pace::cost(std::int64_t rows) const {
  const auto seconds = [&](std::int64_t at) { return seconds_[static_cast<std::size_t>(at)]; };
  const auto more = [](std::int64_t count) { return 1 + kOfARow * static_cast<double>(count); };
  std::int64_t known = std::min(rows, std::ssize(seconds_) - 1);
  while (known > 0 && seconds(known) == 0) --known;
  if (known > 0) return seconds(known) * more(rows - known);
  // Fewer than were ever measured: what the fewest measured take, without the rows more.
  for (known = rows + 1; known < std::ssize(seconds_); ++known) {
    if (seconds(known) > 0) return seconds(known) * more(rows - 1) / more(known - 1);
  }
  return more(rows - 1);
}

std::int64_t Ambition::next(const Pace& pace, std::int64_t others, std::int64_t limit) {
  const std::int64_t most = std::min(most_, limit);
  if (most <= 0) return 0;
  const double share = right_ / (right_ + wrong_);
  const std::int64_t wanted = worth(most, pace, others, [&](std::int64_t) { return share; });
  if (wanted > 0 || ++silent_ < pause_) return wanted;
  silent_ = 0;
  pause_ = std::min(2 * pause_, kLongestPause);
  return 1;
}

void Ambition::learn(std::int64_t proposed, std::int64_t accepted) {
  if (proposed == 0) return;
  right_ = kFaded * right_ + static_cast<double>(accepted);
  wrong_ = kFaded * wrong_ + (accepted < proposed ? 1 : 0);
  if (accepted == proposed) pause_ = 2;
}

}  // namespace omnima::generate

// Prompt look-up, and the size of proposals.
#include "omnima/generate/speculation.h"

#include <algorithm>

namespace omnima::generate {
namespace {

constexpr std::int64_t kLongest = 3, kShortest = 2;  // tokens that agree
constexpr std::int64_t kLongestPause = 32;           // steps
constexpr double kOfARow = 0.05;                     // of a step: a row more, before it is measured
constexpr double kNew = 0.25;                        // weight of a new measurement
constexpr double kFaded = 0.85;                      // weight of guesses a step ago

}  // namespace

void look_up(std::span<const std::int64_t> ids, std::int64_t most,
             std::vector<std::int64_t>& proposals) {
  const auto end = std::ssize(ids);
  std::int64_t agreed = kShortest - 1, found = 0;
  for (std::int64_t at = end - 1; at >= kShortest && agreed < kLongest; --at) {
    std::int64_t same = 0;
    while (same < std::min(at, kLongest) && ids[at - 1 - same] == ids[end - 1 - same]) ++same;
    if (same > agreed) {
      agreed = same;
      found = at;
    }
  }
  if (found == 0) return;
  const std::int64_t period = end - found;
  for (std::int64_t i = 0; i < most; ++i) proposals.push_back(ids[found + i % period]);
}

void Pace::learn(std::int64_t rows, double seconds) {
  const auto at = static_cast<std::size_t>(rows);
  if (at >= seconds_.size()) seconds_.resize(at + 1);
  double& known = seconds_[at];
  // A step that something else held up counts as a slow one, no more.
  known = known == 0 ? seconds : known + kNew * (std::min(seconds, 2 * known) - known);
}

double Pace::cost(std::int64_t rows) const {
  auto known = std::min(rows, std::ssize(seconds_) - 1);
  while (known > 0 && seconds_[static_cast<std::size_t>(known)] == 0) --known;
  const double seconds = known > 0 ? seconds_[static_cast<std::size_t>(known)] : 1;
  return seconds * (1 + kOfARow * static_cast<double>(rows - std::max<std::int64_t>(known, 1)));
}

// The proposal that gives the most tokens a second, if each guess is right as often as those before
// (Leviathan et al. 2023, section 3).
std::int64_t Ambition::next(const Pace& pace, std::int64_t others, std::int64_t limit) {
  const std::int64_t most = std::min(most_, limit);
  if (most <= 0) return 0;
  const double share = right_ / (right_ + wrong_);
  double tokens = 1, reached = 1, best = 1 / pace.cost(others + 1);
  std::int64_t wanted = 0;
  for (std::int64_t count = 1; count <= most; ++count) {
    tokens += reached *= share;
    const double rate = tokens / pace.cost(others + 1 + count);
    if (rate <= best) continue;
    best = rate;
    wanted = count;
  }
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

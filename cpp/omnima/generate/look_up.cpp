#include "omnima/generate/look_up.h"

#include <algorithm>

namespace omnima::generate {
namespace {

constexpr std::int64_t kWindow = 8;    // tokens that are compared
constexpr std::int64_t kRegained = 3;  // agree before a latest token that does not
constexpr double kBelief = 4;          // guesses that the expected shares count for
constexpr double kFaded = 0.95;        // weight of a guess before
constexpr double kLonger = 0.0005;     // decides between kinds that are right as often

// The share of guesses that were right in texts that repeat (lists, logs, tables, code), by the
// tokens that agree and by those that agree behind one that does not.
constexpr std::array<double, 6> kByAgreed{0.1, 0.35, 0.55, 0.7, 0.8, 0.88};
constexpr std::array<double, 3> kByBefore{0, 0.55, 0.7};
constexpr std::array<double, 3> kOnlyBefore{0, 0.45, 0.65};  // the latest does not agree

}  // namespace

std::size_t LookUp::kind(std::int64_t agreed, std::int64_t before) {
  const std::int64_t first = agreed < 4 ? agreed : agreed < kWindow ? 4 : 5;
  const std::int64_t second = before < 2 ? 0 : before < 4 ? 1 : 2;
  return static_cast<std::size_t>(first * kBefore + second);
}

std::array<LookUp::Count, LookUp::kAgreed * LookUp::kBefore> LookUp::expected() {
  std::array<Count, kAgreed * kBefore> counts;
  for (std::size_t first = 0; first < kAgreed; ++first) {
    for (std::size_t second = 0; second < kBefore; ++second) {
      const double behind = first == 0 ? kOnlyBefore[second] : kByBefore[second];
      const double share = std::max(kByAgreed[first], behind);
      counts[first * kBefore + second] = {kBelief * share, kBelief * (1 - share)};
    }
  }
  return counts;
}

double LookUp::share(std::int64_t agreed, std::int64_t before) const {
  const Count& count = counts_[kind(agreed, before)];
  return count.right / (count.right + count.wrong);
}

LookUp::Place LookUp::find(std::span<const std::int64_t> ids) const {
  const auto end = std::ssize(ids);
  Place best;
  double highest = 0;
  for (std::int64_t at = end - 1; at > 0 && best.agreed < kWindow; --at) {
    const std::int64_t most = std::min(at, kWindow);
    std::int64_t back = 0;
    while (back < most && ids[at - 1 - back] == ids[end - 1 - back]) ++back;
    const std::int64_t agreed = back++;
    std::int64_t before = 0;
    while (back < most && ids[at - 1 - back] == ids[end - 1 - back]) ++back, ++before;
    if (agreed == 0 && before < kRegained) continue;
    const double value =
        share(agreed, before) + kLonger * static_cast<double>(std::min(agreed + before, kWindow));
    if (value <= highest) continue;
    highest = value;
    best = {at, agreed, before};
  }
  return best;
}

// Compares the last guess with what was written in its stead, as far as it was right.
void LookUp::learn(std::span<const std::int64_t> ids) {
  if (place_.at == 0) return;
  const std::int64_t period = length_ - place_.at;
  bool right = true;
  for (std::int64_t i = 0; right && length_ + i < std::ssize(ids); ++i) {
    right = ids[place_.at + i % period] == ids[length_ + i];
    Count& count = counts_[kind(place_.agreed + i, place_.before)];
    count.right = kFaded * count.right + (right ? 1 : 0);
    count.wrong = kFaded * count.wrong + (right ? 0 : 1);
  }
}

void LookUp::propose(std::span<const std::int64_t> ids, const Pace& pace, std::int64_t others,
                     std::int64_t limit, std::vector<std::int64_t>& proposals) {
  learn(ids);
  place_ = find(ids);
  length_ = std::ssize(ids);
  if (place_.at == 0) return;
  const std::int64_t wanted = worth(std::min(most_, limit), pace, others, [&](std::int64_t guess) {
    return share(place_.agreed + guess, place_.before);
  });
  // A place so near that its text ends repeats.
  const std::int64_t period = length_ - place_.at;
  for (std::int64_t i = 0; i < wanted; ++i) proposals.push_back(ids[place_.at + i % period]);
}

}  // namespace omnima::generate

// Guesses at what a sequence goes on with, which the model then checks in one pass over its
// weights.
#pragma once

#include <cstdint>
#include <vector>

namespace omnima::generate {

// What a step costs by the number of its rows, as measured. Only the speed depends on it.
class Pace {
 public:
  void learn(std::int64_t rows, double seconds);
  // Seconds; for rows that were never measured a little more than for the fewer ones that were.
  double cost(std::int64_t rows) const;

 private:
  std::vector<double> seconds_;  // by rows; 0: not measured
};

// The number of guesses, at most `most`, that gives the most tokens a second beside `others` rows,
// if the guess at a place is right as often as `share(place)`, given that those before it are
// (Leviathan et al. 2023, section 3).
std::int64_t worth(std::int64_t most, const Pace& pace, std::int64_t others, const auto& share) {
  double tokens = 1, reached = 1, best = 1 / pace.cost(others + 1);
  std::int64_t wanted = 0;
  for (std::int64_t count = 1; count <= most; ++count) {
    tokens += reached *= share(count - 1);
    const double rate = tokens / pace.cost(others + 1 + count);
    if (rate <= best) continue;
    best = rate;
    wanted = count;
  }
  return wanted;
}

// How many tokens of one sequence are worth a proposal, by how many of those before were right.
class Ambition {
 public:
  explicit Ambition(std::int64_t most) : most_(most) {}

  // For the next step, beside `others` rows of it; at most `limit`.
  std::int64_t next(const Pace& pace, std::int64_t others, std::int64_t limit);
  void learn(std::int64_t proposed, std::int64_t accepted);

 private:
  std::int64_t most_;
  double right_ = 2, wrong_ = 1;  // guesses, the latest count most
  std::int64_t silent_ = 0;       // steps without a proposal
  std::int64_t pause_ = 2;        // after so many one token is tried
};

}  // namespace omnima::generate

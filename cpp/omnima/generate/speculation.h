// Guesses at what a sequence goes on with, which the model then checks in one pass over its
// weights.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace omnima::generate {

// Appends up to `most` tokens to `proposals`: those that followed the latest of the places in `ids`
// that agree with its end in three tokens, or else in two. Where that place is so near that its
// text ends, the text repeats. Nothing, where no place agrees.
void look_up(std::span<const std::int64_t> ids, std::int64_t most,
             std::vector<std::int64_t>& proposals);

// What a step costs by the number of its rows, as measured. Only the speed depends on it.
class Pace {
 public:
  void learn(std::int64_t rows, double seconds);
  // Seconds; for rows that were never measured a little more than for the fewer ones that were.
  double cost(std::int64_t rows) const;

 private:
  std::vector<double> seconds_;  // by rows; 0: not measured
};

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

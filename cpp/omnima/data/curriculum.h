// The order of a run's first rows: easy ones alone at the beginning, then more and more of them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace omnima::data {

struct CurriculumOptions {
  std::vector<double> scores{};   // of each document, the easiest lowest; empty: no curriculum
  std::string pacing = "linear";  // "linear", "sqrt", "step" or "exponential"
  double start = 0.1;             // share of the rows that is in at the beginning
  std::int64_t rows = 0;          // rows of the run until all are in; 0: `epochs` says it
  double epochs = 0;              // the same in epochs
};

// The share of the rows that is in when `progress`, from 0 to 1, of the curriculum is over:
// linear; the root of a line (Platanios et al. 2019, equation 7); five equal steps; exponential
// growth (as the pacing of Hacohen and Weinshall 2019, without its steps).
double paced_share(const std::string& pacing, double start, double progress);

// The mean score of the documents in each of the first `windows` stretches of `time` tokens, every
// token counting alike.
std::vector<double> window_scores(std::span<const std::uint64_t> document_ends,
                                  std::span<const double> scores, std::uint64_t time,
                                  std::uint64_t windows);

class Curriculum {
 public:
  // row_scores: of each row of an epoch; only its order counts, and equal ones are shuffled.
  Curriculum(const CurriculumOptions& options, std::span<const double> row_scores,
             std::uint64_t seed);

  // Rows of the run that are ordered here: those of the options, and what is left of the pass
  // that goes on when they are over.
  std::int64_t rows() const { return static_cast<std::int64_t>(order_.size()); }
  // The row of the epoch that stands at a place of the run below rows(). None comes again before
  // all that are in have come.
  std::uint64_t row(std::int64_t place) const { return order_[static_cast<std::size_t>(place)]; }

 private:
  std::vector<std::uint32_t> order_;
};

}  // namespace omnima::data

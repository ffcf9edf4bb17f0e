// Rows are drawn from a pool; the pacing lets rows into it, and an empty one is filled again.
#include "omnima/data/curriculum.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "omnima/core/error.h"
#include "omnima/core/mix.h"

namespace omnima::data {

using core::ConfigError;
using core::require;

namespace {

constexpr double kSteps = 5;                        // of pacing "step"
constexpr double kMostRows = 1 << 28;               // their order takes 4 bytes each
constexpr double kNoise = 1e-6;                     // of a row: the last bits of its share
constexpr std::uint64_t kTies = ~std::uint64_t{0};  // no place of a run: these draws are their own

void check(const CurriculumOptions& options, std::size_t rows_per_epoch) {
  const std::string& pacing = options.pacing;
  require<ConfigError>(
      pacing == "linear" || pacing == "sqrt" || pacing == "step" || pacing == "exponential",
      "the pacing of the curriculum is '", pacing,
      "'; expected 'linear', 'sqrt', 'step' or 'exponential'");
  require<ConfigError>(options.start > 0 && options.start <= 1, "the curriculum starts with ",
                       options.start, " of the rows; expected more than 0 and at most 1");
  require<ConfigError>(
      (options.rows > 0) != (options.epochs > 0) && options.rows >= 0 && options.epochs >= 0,
      "the curriculum takes ", options.rows, " rows or ", options.epochs,
      " epochs; expected one of them, above 0");
  const double rows = static_cast<double>(rows_per_epoch);
  const double all = static_cast<double>(options.rows) + options.epochs * rows + rows;
  require<ConfigError>(all <= kMostRows, "the curriculum would order ", all,
                       " rows; expected at most ", kMostRows,
                       ": let it end earlier (curriculum_steps)");
}

// Rows from the easiest to the hardest.
std::vector<std::uint32_t> easiest_first(std::span<const double> scores, std::uint64_t seed) {
  std::vector<std::uint32_t> rows(scores.size());
  std::iota(rows.begin(), rows.end(), 0u);
  const std::uint64_t key = core::mix(seed, kTies);
  std::ranges::sort(rows, [&](std::uint32_t a, std::uint32_t b) {
    if (scores[a] != scores[b]) return scores[a] < scores[b];
    return core::mix(key, a) < core::mix(key, b);
  });
  return rows;
}

}  // namespace

double paced_share(const std::string& pacing, double start, double progress) {
  if (pacing == "sqrt") return std::sqrt(start * start + (1 - start * start) * progress);
  if (pacing == "step") return start + (1 - start) * std::floor(progress * kSteps) / kSteps;
  if (pacing == "exponential") return std::pow(start, 1 - progress);
  return start + (1 - start) * progress;
}

std::vector<double> window_scores(std::span<const std::uint64_t> document_ends,
                                  std::span<const double> scores, std::uint64_t time,
                                  std::uint64_t windows) {
  std::vector<double> means(windows, 0.0);
  if (document_ends.empty()) return means;
  const std::uint64_t size = std::min(windows * time, document_ends.back());
  std::uint64_t at = 0;
  for (std::size_t document = 0; at < size; ++document) {
    while (at < std::min(document_ends[document], size)) {
      const std::uint64_t window = at / time;
      const std::uint64_t window_end = std::min((window + 1) * time, size);
      const std::uint64_t end = std::min(document_ends[document], window_end);
      const double share =
          static_cast<double>(end - at) / static_cast<double>(window_end - window * time);
      means[window] += scores[document] * share;
      at = end;
    }
  }
  return means;
}

Curriculum::Curriculum(const CurriculumOptions& options, std::span<const double> row_scores,
                       std::uint64_t seed) {
  check(options, row_scores.size());
  const std::vector<std::uint32_t> easiest = easiest_first(row_scores, seed);
  const auto count = static_cast<double>(easiest.size());
  const auto paced =
      options.rows > 0
          ? static_cast<std::uint64_t>(options.rows)
          : static_cast<std::uint64_t>(std::max(1.0, std::round(options.epochs * count)));
  order_.reserve(paced);
  std::vector<std::uint32_t> pool;
  std::size_t in = 0;
  const auto allowed = [&](std::uint64_t place) {
    if (place >= paced) return easiest.size();
    const double progress = static_cast<double>(place) / static_cast<double>(paced);
    const double rows = paced_share(options.pacing, options.start, progress) * count;
    return static_cast<std::size_t>(std::clamp(std::ceil(rows - kNoise), 1.0, count));
  };
  for (std::uint64_t place = 0; place < paced || in < easiest.size() || !pool.empty(); ++place) {
    for (const std::size_t until = allowed(place); in < until; ++in) pool.push_back(easiest[in]);
    if (pool.empty()) pool.assign(easiest.begin(), easiest.begin() + static_cast<long>(in));
    const std::size_t drawn = core::mix(seed, place) % pool.size();
    order_.push_back(pool[drawn]);
    pool[drawn] = pool.back();
    pool.pop_back();
  }
}

}  // namespace omnima::data

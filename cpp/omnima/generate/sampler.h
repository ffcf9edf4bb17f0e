// Draws one sequence's next token from its logits, in the order and with the meaning of
// transformers' logits processors: repetition penalty, temperature, top-k, top-p, min-p. Before
// them biases are added; the penalties of frequency and presence follow that of repetition (what
// these mean is OpenAI's).
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "omnima/generate/options.h"

namespace omnima::generate {

// A number in [0, 1) that is a pure function of the seed and the step: no state is carried, so a
// sequence draws the same numbers alone and in any batch.
double uniform(std::uint64_t seed, std::uint64_t step);

class Sampler {
 public:
  Sampler(const GenerateOptions& options, std::uint64_t seed, std::int64_t vocab_size);

  // The sequence holds this token: what the repetition penalty looks at.
  void saw(std::int64_t id);
  // This token is new in it: what the other penalties look at, too.
  void wrote(std::int64_t id);
  // Goes on from where another sampler of these options is.
  void follow(const Sampler& other);
  // Applies all that the options ask for, in place; dropped tokens become -infinity.
  void process(std::span<float> logits);
  // The next token, one of those that have a logit here; with `allowed`, a bit an id, one of those
  // whose bit is set. Changes the logits. Throws NonFiniteError on NaN or infinity, ConfigError
  // where no token is allowed.
  std::int64_t next(std::span<float> logits, std::span<const std::int32_t> allowed = {});

 private:
  // Throws NonFiniteError for the first logit that is not finite.
  void refuse(std::span<const float> logits) const;
  void penalize(std::span<float> logits) const;
  // Fills weights_ with the unnormalised probabilities and returns their sum.
  double weigh(std::span<const float> logits);
  std::int64_t draw(std::span<const float> logits);
  void keep_top_k(std::span<float> logits);
  void keep_top_p(std::span<float> logits);

  const GenerateOptions& options_;
  std::uint64_t seed_;
  std::uint64_t step_ = 0;
  std::vector<bool> seen_;     // [vocab], empty without a penalty of repetition
  std::vector<float> times_;   // [vocab] written, empty without a penalty of these
  std::vector<float> sorted_;  // scratch of top-k
  std::vector<float> weights_;
  std::vector<std::int32_t> bands_;                   // scratch of top-p
  std::vector<std::pair<float, std::size_t>> order_;  // scratch of top-p
};

}  // namespace omnima::generate

// Log-probabilities of tokens in a model's own distribution.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "omnima/generate/request.h"

namespace omnima::generate {

// Of the ids that have a logit here; what is asked before a sampler changes them.
class Logprobs {
 public:
  // The `count` likeliest, of equal ones the first.
  Logprobs(std::span<const float> logits, std::int64_t count);
  // With the logprob of the token that had this logit.
  TokenLogprob of(float logit) const;

 private:
  float total_;  // log of the sum of all exponentials
  std::vector<std::pair<std::int64_t, float>> top_;
};

}  // namespace omnima::generate

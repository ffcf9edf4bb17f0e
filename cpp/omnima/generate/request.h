// What a text that many share an engine for asks of it, and what it hears of it.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "omnima/generate/call.h"
#include "omnima/generate/options.h"

namespace omnima::generate {

struct Request {
  Ids prompt;
  GenerateOptions options;  // with the one seed of this text; without speculation
  Adapters adapters;        // null: the base alone
  // Of each new token its log-probability, and the likeliest tokens': so many; -1: none of these.
  std::int64_t top_logprobs = -1;
  std::uint64_t weights = 0;  // what computes it (fingerprint.h); texts of the same share prefixes
  std::uint64_t client = 0;   // whose it is: clients take turns, by tokens
  bool constrained = false;   // which tokens may come next is asked before each (Constrain)
};

// In the model's own distribution: without temperature, penalty and filters.
struct TokenLogprob {
  float logprob;
  std::vector<std::pair<std::int64_t, float>> top;  // likeliest first
};

// What became of a request in one step.
struct Event {
  std::uint64_t request;
  Ids ids{};  // new tokens, the stop token included
  std::vector<TokenLogprob> logprobs{};
  // "": it goes on. Then "eos", "length" as in Written, "cancelled" or "error".
  std::string finish_reason{};
  std::int64_t cached = 0;  // tokens of the prompt that were known; in the first event
  std::string error{};
};

// Which tokens may come next. For each request in `requests`, whose newest tokens are `ids` (none
// before its first), sets the bits of those that may in its row of `masks` [requests, words], a
// bit an id from the lowest bit of the first word on. Returns an error for each that has one.
using Constrain = std::function<std::vector<std::string>(std::span<const std::uint64_t> requests,
                                                         std::span<const std::int64_t> ids,
                                                         std::span<std::int32_t> masks)>;

}  // namespace omnima::generate

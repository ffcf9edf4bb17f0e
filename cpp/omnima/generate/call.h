// What a call of Engine::generate takes beside its prompts and options, and what it gives back.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "omnima/generate/options.h"
#include "omnima/ops/adapted.h"

namespace omnima::generate {

struct Written {
  Ids ids;                    // the new tokens, the stop token included
  std::string finish_reason;  // "eos": a stop id; "length": max_new_tokens or the context is full;
                              // "stop": on_token said so
  std::int64_t proposed = 0;  // tokens that were guessed ahead
  std::int64_t accepted = 0;  // of these, what the text goes on with
  std::int64_t cached = 0;    // tokens of the prompt that a prompt cache knew
};

struct Hooks {
  // Called for every new token; false ends its sequence.
  std::function<bool(std::int64_t sequence, std::int64_t id)> on_token;
  // Called once a step; what it throws ends the call.
  std::function<void()> poll;
};

// What adapters make of a model; null: nothing.
using Adapters = std::shared_ptr<const ops::AdaptedModel>;

}  // namespace omnima::generate

// The cosines and sines of rotary positions (Su et al. 2021), and how they stretch to a longer
// context: for training and for generation the same numbers.
#pragma once

#include <ATen/core/Tensor.h>

#include "omnima/models/decoder_config.h"

namespace omnima::models {

struct RotaryTables {
  at::Tensor cos, sin;  // float32 [length, head_dim / 2]; undefined without rotary positions
};

// The frequencies of the turning pairs, float32 [rotary_dims / 2], for a sequence of so many
// tokens: only dynamic scaling heeds it. In float32 step by step as transformers'
// ROPE_INIT_FUNCTIONS.
at::Tensor rotary_frequencies(const DecoderConfig& config, std::int64_t sequence);

// Places 0 to length - 1 of a sequence of so many tokens. Pairs are (i, i + head_dim / 2); where
// only a part of a head turns, those are its first pairs, in whatever order a file has them.
RotaryTables rotary_tables(const DecoderConfig& config, std::int64_t length, std::int64_t sequence);
// Those of layers with a sliding window, where they have a base of their own; else undefined.
RotaryTables local_rotary_tables(const DecoderConfig& config, std::int64_t length);

// Whether a sequence of so many tokens has tables of its own.
bool rotary_follows_length(const DecoderConfig& config, std::int64_t sequence);

}  // namespace omnima::models

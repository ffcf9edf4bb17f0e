// The key-value cache of one sequence.
#include "omnima/generate/decode_state.h"

namespace omnima::generate {

DecodeState::DecodeState(const models::DecoderConfig& config, std::int64_t capacity)
    : SequenceState(capacity),
      heads_(config.num_key_value_heads),
      head_dim_(config.head_dim),
      stride_((capacity + 15) / 16 * 16),
      block_(stride_ * config.head_dim),
      cache_(new float[static_cast<std::size_t>(2 * config.num_hidden_layers *
                                                config.num_key_value_heads * block_)]) {}

float* DecodeState::keys(std::int64_t layer, std::int64_t head) {
  return cache_.get() + (layer * heads_ + head) * 2 * block_;
}

float* DecodeState::values(std::int64_t layer, std::int64_t head) {
  return keys(layer, head) + block_;
}

}  // namespace omnima::generate

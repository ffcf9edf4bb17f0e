// The key-value cache of one sequence.
#include "omnima/generate/decode_state.h"

#include "omnima/core/error.h"

namespace omnima::generate {

DecodeState::DecodeState(const models::DecoderConfig& config, std::int64_t capacity)
    : heads_(config.num_key_value_heads),
      head_dim_(config.head_dim),
      capacity_(capacity),
      stride_((capacity + 15) / 16 * 16),
      block_(stride_ * config.head_dim),
      cache_(new float[static_cast<std::size_t>(2 * config.num_hidden_layers *
                                                config.num_key_value_heads * block_)]) {}

void DecodeState::advance(std::int64_t count) {
  core::require(count >= 0 && position_ + count <= capacity_, "A decode state for ", capacity_,
                " tokens holds ", position_, " and was given ", count,
                " more. Make it larger, or truncate it first.");
  position_ += count;
}

void DecodeState::truncate(std::int64_t position) {
  core::require(position >= 0 && position <= position_, "A decode state of ", position_,
                " tokens cannot be cut to ", position, ".");
  position_ = position;
}

float* DecodeState::keys(std::int64_t layer, std::int64_t head) {
  return cache_.get() + (layer * heads_ + head) * 2 * block_;
}

float* DecodeState::values(std::int64_t layer, std::int64_t head) {
  return keys(layer, head) + block_;
}

}  // namespace omnima::generate

// The CPU's memory of a sequence: the keys and values of attention.
#pragma once

#include <cstdint>
#include <memory>

#include "omnima/generate/sequence_state.h"
#include "omnima/models/decoder_config.h"

namespace omnima::generate {

class DecodeState final : public SequenceState {
 public:
  // Room for `capacity` tokens.
  DecodeState(const models::DecoderConfig& config, std::int64_t capacity);

  float* keys(std::int64_t layer, std::int64_t head);    // [capacity, head_dim]
  float* values(std::int64_t layer, std::int64_t head);  // [head_dim, stride()]: time runs inside
  std::int64_t stride() const { return stride_; }

 private:
  std::int64_t heads_, head_dim_, stride_;
  std::int64_t block_;              // floats of one head's keys, and of its values
  std::unique_ptr<float[]> cache_;  // [layers, heads, keys | values]; left unwritten until used
};

}  // namespace omnima::generate

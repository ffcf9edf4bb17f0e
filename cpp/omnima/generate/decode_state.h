// What a model remembers of a sequence while it writes on. For attention: the keys and values.
#pragma once

#include <cstdint>
#include <memory>

#include "omnima/models/decoder_config.h"

namespace omnima::generate {

class DecodeState {
 public:
  // Room for `capacity` tokens.
  DecodeState(const models::DecoderConfig& config, std::int64_t capacity);

  std::int64_t position() const { return position_; }  // tokens remembered
  std::int64_t capacity() const { return capacity_; }
  // Remembers `count` more tokens, whose keys and values have been written.
  void advance(std::int64_t count);
  // Forgets all but the first `position` tokens.
  void truncate(std::int64_t position);
  void reset() { truncate(0); }

  float* keys(std::int64_t layer, std::int64_t head);    // [capacity, head_dim]
  float* values(std::int64_t layer, std::int64_t head);  // [head_dim, stride()]: time runs inside
  std::int64_t stride() const { return stride_; }

 private:
  std::int64_t heads_, head_dim_, capacity_, stride_, position_ = 0;
  std::int64_t block_;              // floats of one head's keys, and of its values
  std::unique_ptr<float[]> cache_;  // [layers, heads, keys | values]; left unwritten until used
};

}  // namespace omnima::generate

// The CPU's memory of a sequence: the keys and values of attention.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "omnima/generate/sequence_state.h"
#include "omnima/kernels/cpu/cached_heads.h"
#include "omnima/models/decoder_config.h"

namespace omnima::generate {

class Change;

// "fp32", "bf16" or "int8"; else a ConfigError.
kernels::CacheFormat cache_format_named(const std::string& name);

class DecodeState final : public SequenceState {
 public:
  // Room for `capacity` tokens.
  DecodeState(const models::DecoderConfig& config, std::int64_t capacity,
              kernels::CacheFormat format = kernels::CacheFormat::kFloat32);

  kernels::CacheFormat format() const { return format_; }
  std::int64_t layers() const { return layers_; }
  std::int64_t heads() const { return heads_; }  // of keys and values
  std::int64_t bytes() const override { return layers_ * heads_ * head_bytes_; }

  // What adapters change for this sequence; null: nothing.
  void use(const Change* change) { change_ = change; }
  const Change* change() const { return change_; }

  // In float32:
  float* keys(std::int64_t layer, std::int64_t head);    // [capacity, head_dim]
  float* values(std::int64_t layer, std::int64_t head);  // [head_dim, stride()]: time runs inside
  const float* keys(std::int64_t layer, std::int64_t head) const;
  const float* values(std::int64_t layer, std::int64_t head) const;
  std::int64_t stride() const { return stride_; }
  // In other formats:
  kernels::CachedHead head(std::int64_t layer, std::int64_t head) const;
  // One token's key and value of a head [head_dim], whatever the format.
  void read(std::int64_t layer, std::int64_t head, std::int64_t token, float* key,
            float* value) const;
  // What a head remembers of the first `tokens` tokens of `of`, a state of the same model and
  // format, as it is there.
  void copy(const DecodeState& of, std::int64_t layer, std::int64_t head, std::int64_t tokens);

 private:
  struct Free {
    void operator()(std::uint8_t* memory) const;
  };

  const Change* change_ = nullptr;
  std::int64_t layers_, heads_, head_dim_, stride_;
  kernels::CacheFormat format_;
  std::int64_t key_bytes_, value_bytes_, head_bytes_;  // of one head
  // [layers, heads, keys | values | scales]; left unwritten until used.
  std::unique_ptr<std::uint8_t, Free> cache_;
};

}  // namespace omnima::generate

// The key-value cache of one sequence.
#include "omnima/generate/decode_state.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "omnima/core/error.h"

namespace omnima::generate {
namespace {

using kernels::CacheFormat;
constexpr std::int64_t kLine = 64;

std::int64_t lines(std::int64_t bytes) { return (bytes + kLine - 1) / kLine * kLine; }

}  // namespace

CacheFormat cache_format_named(const std::string& name) {
  if (name == "fp32") return CacheFormat::kFloat32;
  if (name == "bf16") return CacheFormat::kBf16;
  if (name == "int8") return CacheFormat::kInt8;
  throw core::ConfigError(
      core::message("cache_precision is \"", name, "\"; the choices are fp32, bf16 and int8."));
}

DecodeState::DecodeState(const models::DecoderConfig& config, std::int64_t capacity,
                         CacheFormat format)
    : SequenceState(capacity),
      layers_(config.num_hidden_layers),
      heads_(config.num_key_value_heads),
      head_dim_(config.head_dim),
      stride_(kernels::whole_tiles(capacity)),
      format_(format) {
  const bool exact = format == CacheFormat::kFloat32;
  const std::int64_t number = kernels::CachedHead::number_bytes(format);
  const std::int64_t width = exact ? head_dim_ : kernels::whole_tiles(head_dim_);
  key_bytes_ = lines(stride_ * head_dim_ * number);
  value_bytes_ = lines(stride_ * width * number);
  head_bytes_ = key_bytes_ + value_bytes_;
  if (format == CacheFormat::kInt8) {
    head_bytes_ += 2 * stride_ * static_cast<std::int64_t>(sizeof(float));
  }
  const std::int64_t all = lines(bytes());
  cache_.reset(
      static_cast<std::uint8_t*>(std::aligned_alloc(kLine, static_cast<std::size_t>(all))));
  if (cache_ == nullptr && all > 0) throw std::bad_alloc();
}

void DecodeState::Free::operator()(std::uint8_t* memory) const { std::free(memory); }

float* DecodeState::keys(std::int64_t layer, std::int64_t head) {
  return reinterpret_cast<float*>(cache_.get() + (layer * heads_ + head) * head_bytes_);
}

float* DecodeState::values(std::int64_t layer, std::int64_t head) {
  return reinterpret_cast<float*>(cache_.get() + (layer * heads_ + head) * head_bytes_ +
                                  key_bytes_);
}

const float* DecodeState::keys(std::int64_t layer, std::int64_t head) const {
  return const_cast<DecodeState*>(this)->keys(layer, head);
}

const float* DecodeState::values(std::int64_t layer, std::int64_t head) const {
  return const_cast<DecodeState*>(this)->values(layer, head);
}

void DecodeState::read(std::int64_t layer, std::int64_t head, std::int64_t token, float* key,
                       float* value) const {
  if (format_ == CacheFormat::kFloat32) {
    std::copy_n(keys(layer, head) + token * head_dim_, head_dim_, key);
    const float* from = values(layer, head) + token;
    for (std::int64_t i = 0; i < head_dim_; ++i) value[i] = from[i * stride_];
    return;
  }
  kernels::read_cached(this->head(layer, head), token, key, value);
}

void DecodeState::copy(const DecodeState& of, std::int64_t layer, std::int64_t head,
                       std::int64_t tokens) {
  core::require(of.format_ == format_ && of.head_dim_ == head_dim_ && tokens <= of.position() &&
                    tokens <= capacity(),
                "A decode state for ", capacity(), " tokens cannot take ", tokens, " from one of ",
                of.position(), ", or they are of different models.");
  const auto copy_bytes = [](const void* from, std::int64_t count, void* to) {
    std::memcpy(to, from, static_cast<std::size_t>(count));
  };
  if (format_ == CacheFormat::kFloat32) {
    std::copy_n(of.keys(layer, head), tokens * head_dim_, keys(layer, head));
    for (std::int64_t i = 0; i < head_dim_; ++i) {
      std::copy_n(of.values(layer, head) + i * of.stride_, tokens,
                  values(layer, head) + i * stride_);
    }
    return;
  }
  const kernels::CachedHead from = of.head(layer, head), to = this->head(layer, head);
  const std::int64_t number = kernels::CachedHead::number_bytes(format_);
  // Keys lie in whole tiles: those of the last one that are not taken are written before they are
  // read.
  copy_bytes(from.keys, kernels::whole_tiles(tokens) * head_dim_ * number, to.keys);
  copy_bytes(from.values, tokens * kernels::whole_tiles(head_dim_) * number, to.values);
  if (from.key_scales == nullptr) return;
  std::copy_n(from.key_scales, tokens, to.key_scales);
  std::copy_n(from.value_scales, tokens, to.value_scales);
}

kernels::CachedHead DecodeState::head(std::int64_t layer, std::int64_t head) const {
  std::uint8_t* keys = cache_.get() + (layer * heads_ + head) * head_bytes_;
  kernels::CachedHead found{format_, head_dim_, keys, keys + key_bytes_, nullptr, nullptr};
  if (format_ == CacheFormat::kInt8) {
    found.key_scales = reinterpret_cast<float*>(keys + key_bytes_ + value_bytes_);
    found.value_scales = found.key_scales + stride_;
  }
  return found;
}

}  // namespace omnima::generate

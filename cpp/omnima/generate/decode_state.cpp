// The key-value cache of one sequence.
#include "omnima/generate/decode_state.h"

#include <cstdlib>
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
  const std::int64_t all = lines(config.num_hidden_layers * heads_ * head_bytes_);
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

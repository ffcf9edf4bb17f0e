// The key-value cache of one sequence.
#include "omnima/generate/decode_state.h"

#include <algorithm>
#include <cstring>

#include "omnima/core/error.h"

namespace omnima::generate {
namespace {

using kernels::CacheFormat;

std::int64_t lines(std::int64_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

CacheFormat cache_format_named(const std::string& name) {
  if (name == "fp32") return CacheFormat::kFloat32;
  if (name == "bf16") return CacheFormat::kBf16;
  if (name == "int8") return CacheFormat::kInt8;
  throw core::ConfigError(
      core::message("cache_precision is \"", name, "\"; the choices are fp32, bf16 and int8."));
}

PageLayout::PageLayout(const models::DecoderConfig& config, CacheFormat format)
    : layers_(config.num_hidden_layers),
      heads_(config.num_key_value_heads),
      head_dim_(config.head_dim),
      format_(format) {
  const std::int64_t number = kernels::CachedHead::number_bytes(format);
  key_bytes_ = lines(kPageTokens * head_dim_ * number);
  value_bytes_ = lines(kPageTokens * kernels::whole_tiles(head_dim_) * number);
  head_bytes_ = key_bytes_ + value_bytes_;
  if (format == CacheFormat::kInt8) {
    head_bytes_ += 2 * kPageTokens * static_cast<std::int64_t>(sizeof(float));
  }
}

kernels::CachedHead PageLayout::head(std::uint8_t* page, std::int64_t layer,
                                     std::int64_t head) const {
  std::uint8_t* keys = page + (layer * heads_ + head) * head_bytes_;
  kernels::CachedHead found{format_, head_dim_, keys, keys + key_bytes_, nullptr, nullptr};
  if (format_ == CacheFormat::kInt8) {
    found.key_scales = reinterpret_cast<float*>(keys + key_bytes_ + value_bytes_);
    found.value_scales = found.key_scales + kPageTokens;
  }
  return found;
}

DecodeState::DecodeState(const PageLayout& layout, std::int64_t capacity, PagePool& pool)
    : SequenceState(capacity), layout_(layout) {
  pages_.reserve(static_cast<std::size_t>(pages_for(capacity)));
  for (std::int64_t i = 0; i < pages_for(capacity); ++i) pages_.push_back(pool.take());
}

DecodeState::DecodeState(const models::DecoderConfig& config, std::int64_t capacity,
                         CacheFormat format)
    : SequenceState(capacity), layout_(config, format) {
  PagePool pool(layout_.page_bytes());
  for (std::int64_t i = 0; i < pages_for(capacity); ++i) pages_.push_back(pool.take());
}

void DecodeState::write(std::int64_t layer, std::int64_t head, std::int64_t token, const float* key,
                        const float* value) const {
  kernels::cached_head_kernels().write(this->head(layer, head, token / kPageTokens),
                                       token % kPageTokens, key, value);
}

void DecodeState::read(std::int64_t layer, std::int64_t head, std::int64_t first,
                       std::int64_t count, float* keys, float* values) const {
  kernels::read_cached(this->head(layer, head, first / kPageTokens), first % kPageTokens, count,
                       keys, values);
}

void DecodeState::begin_as(const DecodeState& of, std::int64_t tokens) {
  core::require(of.layout_ == layout_ && tokens <= of.position() && tokens <= capacity(),
                "A decode state for ", capacity(), " tokens cannot take ", tokens, " from one of ",
                of.position(), ", or they are of different models.");
  const std::int64_t whole = tokens / kPageTokens;
  take_pages(0, of.pages(0, whole));
  if (tokens % kPageTokens > 0) {
    const auto at = static_cast<std::size_t>(whole);
    std::memcpy(pages_[at].get(), of.pages_[at].get(),
                static_cast<std::size_t>(layout_.page_bytes()));
  }
  reset();
  advance(tokens);
}

std::vector<Page> DecodeState::pages(std::int64_t first, std::int64_t count) const {
  return {pages_.begin() + first, pages_.begin() + first + count};
}

void DecodeState::take_pages(std::int64_t first, const std::vector<Page>& pages) {
  std::copy(pages.begin(), pages.end(), pages_.begin() + first);
}

}  // namespace omnima::generate

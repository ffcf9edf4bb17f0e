// The CPU's memory of a sequence: the keys and values of attention, in pages.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "omnima/generate/pages.h"
#include "omnima/generate/sequence_state.h"
#include "omnima/kernels/cpu/cached_heads.h"
#include "omnima/models/decoder_config.h"
#include "omnima/models/rotary.h"

namespace omnima::generate {

class Change;

// "fp32", "bf16" or "int8"; else a ConfigError.
kernels::CacheFormat cache_format_named(const std::string& name);

// How a page [layers, heads, keys | values | scales] holds the tokens of a model.
class PageLayout {
 public:
  PageLayout(const models::DecoderConfig& config, kernels::CacheFormat format);

  kernels::CacheFormat format() const { return format_; }
  std::int64_t page_bytes() const { return layers_ * heads_ * head_bytes_; }
  kernels::CachedHead head(std::uint8_t* page, std::int64_t layer, std::int64_t head) const;
  bool operator==(const PageLayout&) const = default;

 private:
  std::int64_t layers_, heads_, head_dim_;
  kernels::CacheFormat format_;
  std::int64_t key_bytes_, value_bytes_, head_bytes_;  // of one head
};

class DecodeState final : public SequenceState {
 public:
  // Room for `capacity` tokens, in pages of the pool: it must have pages of the layout's size.
  DecodeState(const PageLayout& layout, std::int64_t capacity, PagePool& pool);
  // The same with pages of its own.
  DecodeState(const models::DecoderConfig& config, std::int64_t capacity,
              kernels::CacheFormat format = kernels::CacheFormat::kFloat32);

  kernels::CacheFormat format() const { return layout_.format(); }
  std::int64_t bytes() const override { return std::ssize(pages_) * layout_.page_bytes(); }

  // What adapters change for this sequence; null: nothing.
  void use(const Change* change) { change_ = change; }
  const Change* change() const { return change_; }

  // The tables that turn this sequence, where they follow its room; null: those of all.
  void turn_by(std::shared_ptr<const models::RotaryTables> tables) { rotary_ = std::move(tables); }
  const std::shared_ptr<const models::RotaryTables>& rotary() const { return rotary_; }

  // The tokens of page `page`, counted from its first.
  kernels::CachedHead head(std::int64_t layer, std::int64_t head, std::int64_t page) const {
    return layout_.head(pages_[static_cast<std::size_t>(page)].get(), layer, head);
  }
  // Remembers one token's key and value [head_dim].
  void write(std::int64_t layer, std::int64_t head, std::int64_t token, const float* key,
             const float* value) const;
  // Keys and values [count, head_dim] of tokens of one tile, whatever the format.
  void read(std::int64_t layer, std::int64_t head, std::int64_t first, std::int64_t count,
            float* keys, float* values) const;
  // Remembers the first `tokens` tokens of `of`, a state of the same layout, as its only ones. It
  // shares the pages that they fill: neither writes there again, as long as `of` does not forget
  // any of these tokens.
  void begin_as(const DecodeState& of, std::int64_t tokens);

  std::vector<Page> pages(std::int64_t first, std::int64_t count) const override;
  void take_pages(std::int64_t first, const std::vector<Page>& pages) override;

 private:
  const Change* change_ = nullptr;
  std::shared_ptr<const models::RotaryTables> rotary_;
  PageLayout layout_;
  std::vector<Page> pages_;
};

}  // namespace omnima::generate

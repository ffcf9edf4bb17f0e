// What models remember of texts, kept from one call to the next: a prompt that begins as one of
// them is read from where they part.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <span>

#include "omnima/generate/options.h"
#include "omnima/generate/sequence_state.h"

namespace omnima::generate {

// May be used by several calls at once.
class PromptCache {
 public:
  // Keeps the texts that were used last, in `max_bytes` of memory.
  explicit PromptCache(std::int64_t max_bytes);

  // A text that begins with the same `tokens` tokens; none: state is null. It stays what it is
  // while it is held, whatever is kept and forgotten meanwhile.
  struct Found {
    std::shared_ptr<const SequenceState> state;
    std::int64_t tokens = 0;
  };
  // The one that shares most with `ids`. `weights`: what computed it (fingerprint.h).
  Found find(std::uint64_t weights, std::span<const std::int64_t> ids);
  // `state` remembers all of `ids`. Texts that it goes on with are forgotten for it.
  void keep(std::uint64_t weights, Ids ids, std::unique_ptr<SequenceState> state);
  void clear();

  std::int64_t bytes() const;
  std::int64_t texts() const;
  std::int64_t max_bytes() const { return max_bytes_; }

 private:
  struct Kept {
    std::uint64_t weights;
    Ids ids;
    std::shared_ptr<const SequenceState> state;
  };
  std::int64_t held() const;

  mutable std::mutex mutex_;
  std::int64_t max_bytes_;
  std::list<Kept> kept_;  // the one that was used last is first
};

}  // namespace omnima::generate

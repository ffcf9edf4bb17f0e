// What a model remembers of a sequence while it writes on, as far as the engine knows it: for how
// many tokens. The keys and values lie where the model computes.
#pragma once

#include <cstdint>
#include <vector>

#include "omnima/generate/pages.h"

namespace omnima::generate {

class SequenceState {
 public:
  // Room for `capacity` tokens.
  explicit SequenceState(std::int64_t capacity) : capacity_(capacity) {}
  virtual ~SequenceState() = default;
  SequenceState(const SequenceState&) = delete;
  SequenceState& operator=(const SequenceState&) = delete;

  std::int64_t position() const { return position_; }  // tokens remembered
  std::int64_t capacity() const { return capacity_; }
  // Remembers `count` more tokens, whose keys and values have been written.
  void advance(std::int64_t count);
  // Forgets all but the first `position` tokens.
  void truncate(std::int64_t position);
  void reset() { truncate(0); }
  // Of memory, for its whole capacity.
  virtual std::int64_t bytes() const = 0;

  // `count` pages of its keys and values from page `first` on, and others in their place, of
  // another sequence that knows the same tokens there. Without pages: none, and nothing.
  virtual std::vector<Page> pages(std::int64_t /*first*/, std::int64_t /*count*/) const {
    return {};
  }
  virtual void take_pages(std::int64_t /*first*/, const std::vector<Page>& /*pages*/) {}

 private:
  std::int64_t capacity_, position_ = 0;
};

}  // namespace omnima::generate

#include "omnima/generate/sequence_state.h"

#include "omnima/core/error.h"

namespace omnima::generate {

void SequenceState::advance(std::int64_t count) {
  core::require(count >= 0 && position_ + count <= capacity_, "A decode state for ", capacity_,
                " tokens holds ", position_, " and was given ", count,
                " more. Make it larger, or truncate it first.");
  position_ += count;
}

void SequenceState::truncate(std::int64_t position) {
  core::require(position >= 0 && position <= position_, "A decode state of ", position_,
                " tokens cannot be cut to ", position, ".");
  position_ = position;
}

}  // namespace omnima::generate

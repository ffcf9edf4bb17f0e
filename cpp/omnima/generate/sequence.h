// A text that is being written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "omnima/generate/look_up.h"
#include "omnima/generate/options.h"
#include "omnima/generate/sampler.h"
#include "omnima/generate/sequence_state.h"
#include "omnima/generate/speculation.h"

namespace omnima::generate {

// What a draft model knows of a text.
struct Draft {
  std::unique_ptr<SequenceState> state;
  Sampler sampler;
};

struct Sequence {
  std::size_t index;
  Ids ids;  // the prompt and the new tokens; the state remembers all but the last
  std::unique_ptr<SequenceState> state;
  Sampler sampler;
  std::int64_t room;             // tokens it may still write
  Ambition ambition;             // with a draft model
  LookUp look_up;                // without one
  std::unique_ptr<Draft> draft;  // null: without a draft model
  std::int64_t wanted = 0;       // proposals for this step
  Ids proposals{};               // what may follow
  Ids drawn{};                   // what does, in this step
};

}  // namespace omnima::generate

// What one forward pass carries through the layers: parameters, precision, positions and dropout.
#pragma once

#include <cstdint>

#include "omnima/nn/arena.h"
#include "omnima/ops/attention.h"

namespace omnima::nn {

struct Pass {
  const Arena& arena;
  Compute compute;
  ops::Positions positions;
  double dropout = 0.0;            // 0 outside training
  std::uint64_t dropout_seed = 0;  // of this micro-batch; every use draws the next one

  ops::Weight weight(Slot slot) const { return arena.weight(slot, compute); }
  std::uint64_t next_dropout_seed() { return dropout_seed += 0x9e3779b97f4a7c15ULL; }
};

}  // namespace omnima::nn

// What one forward pass carries through the layers: parameters, precision, positions and dropout.
#pragma once

#include <cstdint>
#include <vector>

#include "omnima/core/mix.h"
#include "omnima/nn/arena.h"
#include "omnima/ops/attention.h"

namespace omnima::nn {

// Probabilities of leaving something out; all 0 outside training.
struct DropRates {
  double embedding = 0.0;
  double attention = 0.0;  // a weight of the softmax
  double residual = 0.0;   // a number that attention or mlp adds to the stream
  double layer = 0.0;      // a whole block (LayerDrop: Fan et al. 2020)
};

// Told what every linear layer of a pass is about to multiply with.
class InputObserver {
 public:
  virtual ~InputObserver() = default;
  virtual void see(Slot weight, const at::Tensor& x) = 0;  // x [..., inputs]
};

class Adapters;

// Where virtual tokens stand among the flattened tokens of a pass, and which each is: int64.
struct VirtualPlaces {
  at::Tensor places, which;
};

struct Pass {
  const Arena& arena;
  Compute compute;
  ops::Positions positions;
  DropRates drop{};
  std::uint64_t dropout_seed = 0;    // of this micro-batch; every use draws the next one
  at::Tensor attention_bias{};       // float32 [heads, time], by distance: the same in all layers
  bool training = false;             // routers have losses, experts a capacity
  int64_t routers = 0;               // that have run
  ops::Positions local_positions{};  // as `positions`, for layers with rotary tables of their own

  const Adapters* adapters = nullptr;  // that are in use; null: none
  VirtualPlaces virtuals{};            // of those in use; undefined: there are none
  InputObserver* observer = nullptr;   // then no layer is fused with what stands before it
  // Where every attention puts its weights, float32 [batch, heads, time, time]; null: nowhere.
  std::vector<at::Tensor>* attention_weights = nullptr;

  ops::Weight weight(Slot slot) const { return arena.weight(slot, compute); }
  std::uint64_t next_dropout_seed() { return dropout_seed += 0x9e3779b97f4a7c15ULL; }
  // Whether this pass leaves the next block out.
  bool skips_layer();
};

inline bool Pass::skips_layer() {
  if (drop.layer == 0) return false;
  return static_cast<double>(core::mix(next_dropout_seed()) >> 11) * 0x1p-53 < drop.layer;
}

}  // namespace omnima::nn

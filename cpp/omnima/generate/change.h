// What adapters change in the linear layers of a model, bound to its weights: these stay as they
// are, and rows of one step may each have another change.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "omnima/generate/weights.h"
#include "omnima/ops/adapted.h"

namespace omnima::generate {

// By the names of the layers.
using AdaptedLinears = std::map<std::string, ops::Adapted>;

// y = f (x' W^T + sum of scale (x' A^T) B^T) + b, x' = g x; see ops/adapted.h.
struct LinearChange {
  struct Product {
    Linear down, up;     // A [rank, inputs] and B [rows, rank]
    std::int64_t first;  // output that gets the first row's
    float scale;
  };
  std::vector<Product> products;
  std::vector<float> factors;  // f [outputs]; none: 1
  bool with_bias = false;      // f multiplies b, too
  std::vector<float> inputs;   // g [inputs]; none: 1
};

class Change {
 public:
  // Reads A and B where they lie. Throws ConfigError for a layer that the model does not have, or
  // of another shape.
  Change(const Weights& weights, const AdaptedLinears& adapted);

  // Null: it stays as it is.
  const LinearChange* of(const Linear& linear) const {
    if (linear.place < 0 || linear.place >= static_cast<std::int64_t>(at_.size())) return nullptr;
    const std::int64_t at = at_[static_cast<std::size_t>(linear.place)];
    return at < 0 ? nullptr : &all_[static_cast<std::size_t>(at)];
  }

 private:
  std::vector<std::int64_t> at_;  // in all_, by Linear::place; -1: none
  std::vector<LinearChange> all_;
};

}  // namespace omnima::generate

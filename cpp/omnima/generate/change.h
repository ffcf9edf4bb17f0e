// What adapters change in a model, bound to its weights: these stay as they are, and rows of one
// step may each have another change.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "omnima/generate/weights.h"
#include "omnima/ops/adapted.h"

namespace omnima::generate {

// y becomes y + up(gelu(down(y))).
struct Bottleneck {
  Linear down, up;
};

// y = f (x' W^T + sum of scale outer ((inner x' A^T) B^T)) + b, x' = g x, and then what stands
// behind the layer; see ops/adapted.h.
struct LinearChange {
  struct Product {
    Linear down, up;                  // A [rank, inputs] and B [rows, rank]
    std::int64_t first;               // output that gets the first row's
    std::vector<float> inner, outer;  // [rank], the scale in it; [rows], none: 1
  };
  std::vector<Product> products;
  std::vector<float> factors;  // f [outputs]; none: 1
  bool with_bias = false;      // f multiplies b, too
  std::vector<float> inputs;   // g [inputs]; none: 1
  // In the place of b, from output `first` on.
  struct Bias {
    std::int64_t first;
    std::vector<float> values;
  };
  std::vector<Bias> biases;
  std::optional<Bottleneck> behind;
};

// Tokens in front of a sequence, see nn/adapters/virtual_tokens.h: float32.
struct VirtualTokens {
  std::int64_t count = 0;
  at::Tensor embeddings;                // [count, hidden]; undefined: any
  std::vector<at::Tensor> keys_values;  // of each layer: [count, keys then values]; none: as made
};

class Change {
 public:
  // Reads A and B where they lie. Throws ConfigError for a layer that the model does not have, or
  // of another shape.
  Change(const Weights& weights, const ops::AdaptedModel& adapted);

  // Null: it stays as it is.
  const LinearChange* of(const Linear& linear) const {
    if (linear.place < 0 || linear.place >= static_cast<std::int64_t>(at_.size())) return nullptr;
    const std::int64_t at = at_[static_cast<std::size_t>(linear.place)];
    return at < 0 ? nullptr : &all_[static_cast<std::size_t>(at)];
  }
  const VirtualTokens& virtual_tokens() const { return virtual_tokens_; }

 private:
  std::vector<std::int64_t> at_;  // in all_, by Linear::place; -1: none
  std::vector<LinearChange> all_;
  VirtualTokens virtual_tokens_;
};

}  // namespace omnima::generate

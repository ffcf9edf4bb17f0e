// What adapters make of a linear layer y = x W^T + b, as its operator sees it: low-rank products
// added to some of its outputs, factors on outputs, factors on inputs, and other biases.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "omnima/ops/weight.h"

namespace omnima::ops {

// Products that read the same input: their A lie one below the other and are one factor.
struct LowRank {
  // Outputs `first` to `first + rows - 1` get scale outer ((inner x A^T) B^T), A being rows `begin`
  // to `begin + rank - 1` of `down`. Parts may share rows of it. inner: float32 [rank], outer:
  // float32 [rows]; without values: 1.
  struct Part {
    int64_t first, rows, begin, rank;
    Weight up;  // B [rows, rank]
    double scale;
    Weight inner{}, outer{};
  };
  Weight down;  // [ranks, in]
  std::vector<Part> parts;
  double dropout = 0;  // of x
  std::uint64_t seed = 0;
};

// Outputs `first` to `first + rows - 1` are multiplied by a factor each, without the bias (DoRA) or
// with it (IA3).
struct OutputFactor {
  int64_t first, rows;
  Weight factor;  // float32 [rows]
  bool with_bias = false;
};

// Outputs `first` to `first + rows - 1` have this bias, whatever the layer's own is.
struct OutputBias {
  int64_t first, rows;
  Weight bias;  // float32 [rows]
};

// y = f (x' W^T + sum of the products) + b, with x' = g x; f with_bias multiplies b as well.
struct Adapted {
  std::vector<LowRank> products{};
  std::vector<OutputFactor> outputs{};
  std::vector<OutputBias> biases{};  // not beside factors of outputs
  Weight input{};                    // g, float32 [in]; without leaves: 1

  bool empty() const {
    return products.empty() && outputs.empty() && biases.empty() && input.leaves.empty();
  }
  // Factors of outputs, biases, then of each product A and of each part B, inner and outer, then
  // the factor of inputs.
  std::vector<at::Tensor> leaves() const;
};

// What concerns the outputs `first` to `first + rows - 1`, as a layer of its own has it, without
// dropout.
Adapted rows_of(const Adapted& adapted, int64_t first, int64_t rows);

// What adapters make of a model whose weights stay as they are, for what writes with them.
struct AdaptedModel {
  std::map<std::string, Adapted> linears{};  // by the names of the layers
  // Behind a layer, by its name: y becomes y + gelu(y D^T + d) U^T + u. float32: D [width,
  // outputs], d, U [outputs, width], u.
  struct Behind {
    at::Tensor down, down_bias, up, up_bias;
  };
  std::map<std::string, Behind> behind{};
  // Of tokens in front of a text, float32: embeddings [tokens, hidden], undefined: any; keys and
  // values of each layer [tokens, keys then values of all heads], none: as those of other tokens.
  at::Tensor embeddings{};
  std::vector<at::Tensor> keys_values{};
};

}  // namespace omnima::ops

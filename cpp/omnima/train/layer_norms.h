// How large a step was, layer by layer: the 2-norms of gradients, weights and updates.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "omnima/models/decoder.h"

namespace omnima::train {

struct LayerNorm {
  std::string layer;    // layer_of() of its parameters
  double gradient = 0;  // of the step's loss, before clipping
  double weight = 0;    // after the step
  double update = 0;    // weights after the step minus weights before it
};

// The layer that a parameter belongs to: "layers.3" for model.layers.3.mlp.up_proj.weight,
// "embed_tokens" for model.embed_tokens.weight.
std::string layer_of(const std::string& parameter);

// Measures one step: before(), the step, after(). Between the two it holds a copy of the weights.
class LayerNorms {
 public:
  explicit LayerNorms(std::shared_ptr<models::Decoder> model);
  void before();
  // In the order in which the layers' parameters are declared.
  std::vector<LayerNorm> after();

 private:
  nn::Arena& arena() const { return adapter_ ? adapter_->arena() : model_->arena(); }

  std::shared_ptr<models::Decoder> model_;
  std::shared_ptr<nn::Adapter> adapter_;  // that learns, or null: the model does
  std::vector<std::string> layers_;
  std::vector<std::int64_t> layer_of_parameter_;
  at::Tensor kept_;
};

}  // namespace omnima::train

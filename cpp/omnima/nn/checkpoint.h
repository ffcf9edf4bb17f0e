// Gradient checkpointing (Chen et al. 2016, "Training deep nets with sublinear memory cost"): a
// stage of the forward pass keeps its input alone and runs again in the backward pass.
#pragma once

#include <functional>

#include "omnima/nn/layers.h"

namespace omnima::nn {

using Stage = std::function<Stream(const Stream&, Pass&)>;

// What the stage gives. Dropout draws the same masks the second time. The gradients of the stage's
// parameters go to the arena (pass.compute.direct_gradients), not through the caller's graph.
Stream checkpointed(const Stage& stage, const Stream& input, Pass& pass);

}  // namespace omnima::nn

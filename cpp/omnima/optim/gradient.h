// The gradient as a flat buffer, before the optimizer sees it: its norm, and values cut off.
#pragma once

#include "omnima/nn/arena.h"

namespace omnima::optim {

// The 2-norm of a flat float32 buffer; not finite when any element is not.
double flat_norm(const at::Tensor& flat);

// Every element brought into [-limit, limit]; what is not a number stays so.
void clip_values(const at::Tensor& flat, double limit);

// Adaptive clipping (Brock et al. 2021, "High-Performance Large-Scale Image Recognition Without
// Normalization", equation 3): a row of a matrix, or a whole vector, may have a gradient of norm
// `limit` times its own norm (of 0.001 at least); a longer one is scaled down to it.
void clip_by_weight(nn::Arena& arena, double limit);

}  // namespace omnima::optim

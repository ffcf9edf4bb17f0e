// Rotary position embedding (Su et al. 2021), in the half-split layout of Hugging Face's Llama.
#pragma once

#include <cstdint>

#include "omnima/kernels/cpu/cpu_features.h"
#include "omnima/kernels/cpu/number_types.h"

namespace omnima::kernels {

template <class T>
struct RotaryKernels {
  // Turns `heads` heads of one token in place: x [heads, head_dim], cos and sin [head_dim / 2].
  // sign +1 turns forward, -1 back (the gradient).
  void (*rotate)(T* x, std::int64_t heads, std::int64_t head_dim, const float* cos,
                 const float* sin, float sign);
};

// The kernels of an instruction-set level; a level without its own takes the next lower one.
template <class T>
const RotaryKernels<T>& rotary_kernels(Level level = active_level());

}  // namespace omnima::kernels

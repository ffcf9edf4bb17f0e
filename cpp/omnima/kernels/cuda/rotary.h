// Rotary position embedding (Su et al. 2021, half-split layout) on the fused q, k, v projection.
#pragma once

#include "omnima/kernels/cuda/types.h"

namespace omnima::kernels::cuda {

// Turns the heads of q and k and puts q, k and v side by side into `packed`
// [tokens, (heads + 2 kv_heads) * head_dim]. The sources may lie in `packed` at their own places:
// then the turn is in place and v is left alone.
template <class T>
struct RotaryTask {
  const T* q;  // [tokens, heads, head_dim], tokens q_stride elements apart
  const T* k;  // [tokens, kv_heads, head_dim]
  const T* v;
  std::int64_t q_stride, k_stride, v_stride;
  T* packed;
  const std::int64_t* positions;  // [tokens]; null: token % time
  const float* cos;               // [context, head_dim / 2]; null: no turn
  const float* sin;
  std::int64_t tokens, time;
  int heads, kv_heads, head_dim;
  bool inverse;  // turned back: what gradients need
};

// The turn of a packed projection where it lies.
template <class T>
RotaryTask<T> rotary_in_place(T* packed, std::int64_t tokens, int heads, int kv_heads,
                              int head_dim) {
  const std::int64_t stride = static_cast<std::int64_t>(heads + 2 * kv_heads) * head_dim;
  T* k = packed + static_cast<std::int64_t>(heads) * head_dim;
  return {packed,  k,        k + static_cast<std::int64_t>(kv_heads) * head_dim,
          stride,  stride,   stride,
          packed,  nullptr,  nullptr,
          nullptr, tokens,   tokens,
          heads,   kv_heads, head_dim,
          false};
}

template <class T>
void rotary(const RotaryTask<T>& task, Stream stream);

}  // namespace omnima::kernels::cuda

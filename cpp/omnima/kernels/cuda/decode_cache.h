// Where a sequence's keys and values lie, for .cu files only.
#pragma once

#include "omnima/kernels/cuda/decode_rows.h"
#include "omnima/kernels/cuda/device.h"

namespace omnima::kernels::cuda {

// The keys [capacity, head_dim] of a head in a layer; its values lie right behind them.
template <class T>
__device__ inline T* keys_of(const DecodeRow& row, int layer, int kv_heads, int head,
                             int head_dim) {
  const std::int64_t before = static_cast<std::int64_t>(layer) * kv_heads + head;
  return static_cast<T*>(row.cache) + before * 2 * row.capacity * head_dim;
}

}  // namespace omnima::kernels::cuda

// Causal attention of one key-value head and the query heads that share it, forward and backward.
// Scores are held for a tile of queries and a block of keys at a time, so memory grows linearly
// with the context. The products take numbers of the storage type and sum in float32.
#pragma once

#include <cstdint>

#include "omnima/kernels/cpu/cpu_features.h"
#include "omnima/kernels/cpu/number_types.h"

namespace omnima::kernels {

// One row of the batch. Tokens lie `stride` elements apart in q, k and v, `out_stride` in out.
template <class T>
struct AttentionTask {
  std::int64_t time;
  std::int64_t head_dim;
  std::int64_t group;  // query heads, head_dim apart, that share the key-value head
  std::int64_t stride;
  std::int64_t out_stride;
  const T* q;
  const T* k;
  const T* v;
  T* out;
  float* logsumexp;            // [group, time]
  const std::int64_t* places;  // position inside its document of each token; null: one document
  const float* cos;            // [context, head_dim / 2]; null: no rotary turn
  const float* sin;
  float scale;
};

// Gradients lie as q, k and v do; dout as out does.
template <class T>
struct AttentionGradients {
  const T* dout;
  T* dq;
  T* dk;
  T* dv;
};

template <class T>
struct AttentionKernels {
  // scratch: scratch_bytes(time, head_dim) aligned to 64.
  void (*forward)(const AttentionTask<T>& task, void* scratch);
  void (*backward)(const AttentionTask<T>& task, const AttentionGradients<T>& gradients,
                   void* scratch);
  std::int64_t (*scratch_bytes)(std::int64_t time, std::int64_t head_dim);
};

// The kernels of an instruction-set level; a level without its own takes the next lower one.
template <class T>
const AttentionKernels<T>& attention_kernels(Level level = active_level());

}  // namespace omnima::kernels

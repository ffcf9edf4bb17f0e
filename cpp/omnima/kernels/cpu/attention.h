// Causal attention of one key-value head and the query heads that share it, forward and backward.
// Scores are held for a tile of queries and a block of keys at a time, so memory grows linearly
// with the context. The products take numbers of the storage type and sum in float32.
#pragma once

#include <cstdint>

#include "omnima/core/block_pattern.h"
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
  std::int64_t window = 0;        // the newest tokens that one sees, itself included; 0: all
  float softcap = 0;              // scores become softcap * tanh(score / softcap); 0: they stay
  const float* slopes = nullptr;  // [group]: added to a score times key's minus query's place
  float dropout = 0;              // probability of zeroing a weight; others are divided by the rest
  const float* bias = nullptr;    // [group, bias_stride]: added to the score of a key so many back
  std::int64_t bias_stride = 0;   // at least time
  std::uint64_t dropout_seed = 0;  // of this row and key-value head
  core::BlockPattern blocks{};     // which keys are seen by blocks
  std::int64_t first_head = 0;     // of the group, among the heads that `blocks` counts
  // The first query that forward computes: those before are neither read nor written. A query's
  // numbers are the same whatever it is; with a pattern of blocks to rounding, but for multiples of
  // query_tile.
  std::int64_t first_query = 0;
};

// Gradients lie as q, k and v do; dout as out does.
template <class T>
struct AttentionGradients {
  const T* dout;
  T* dq;
  T* dk;
  T* dv;
  float* dbias = nullptr;  // [group, time], to be added to; null: not asked for
};

template <class T>
struct AttentionKernels {
  // scratch: scratch_bytes(time, head_dim) aligned to 64.
  void (*forward)(const AttentionTask<T>& task, void* scratch);
  void (*backward)(const AttentionTask<T>& task, const AttentionGradients<T>& gradients,
                   void* scratch);
  std::int64_t query_tile;  // queries that are computed together
  std::int64_t (*scratch_bytes)(std::int64_t time, std::int64_t head_dim);
  // What dropout multiplies the weights of a token's query by, for `count` keys from `first` on:
  // a pure function of seed, head within the group, token and key.
  void (*dropout_factors)(const AttentionTask<T>& task, std::int64_t head, std::int64_t token,
                          std::int64_t first, std::int64_t count, float* factors);
};

// The kernels of an instruction-set level; a level without its own takes the next lower one.
template <class T>
const AttentionKernels<T>& attention_kernels(Level level = active_level());

}  // namespace omnima::kernels

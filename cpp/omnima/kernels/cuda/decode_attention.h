// Attention of a decode step's rows to the keys and values of their sequences.
#pragma once

#include "omnima/kernels/cuda/decode_rows.h"

namespace omnima::kernels::cuda {

constexpr int kSplitTokens = 256;  // of a sequence, that one block reads
constexpr int kMostHeadDim = 256;

struct AttentionTask {
  const DecodeRow* rows;
  std::int64_t count;
  const float* q;  // [count, heads, head_dim]
  float* out;      // the same
  // Scratch of attention_scratch() floats; null where splits_of(longest) is 1.
  float* partial;
  std::int64_t longest;  // no row's position is behind it: a step's launches do not depend on more
  int layer, heads, kv_heads, head_dim;
  std::int64_t window;  // tokens that are seen, the row's own included; 0: all
  float scale;
  float softcap;                // 0: none
  const float* slopes;          // [heads] of ALiBi, or null
  const std::int64_t* buckets;  // [longest] of distances, or null
  const float* bias;            // [buckets, heads] with them
};

std::int64_t splits_of(std::int64_t longest);
std::int64_t attention_scratch(std::int64_t rows, std::int64_t heads, std::int64_t head_dim,
                               std::int64_t longest);

// T: float or bfloat16, the numbers of the caches.
template <class T>
void decode_attention(const AttentionTask& task, Stream stream);

}  // namespace omnima::kernels::cuda

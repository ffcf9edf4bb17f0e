// A decode step's rows: each is one token of one sequence. What differs from step to step lies in
// device memory, so that a captured step can be replayed for other tokens, places and sequences.
#pragma once

#include "omnima/kernels/cuda/decode_matrix.h"

namespace omnima::kernels::cuda {

// Written by the host before each step.
struct DecodeRow {
  std::int64_t token;
  std::int64_t position;  // in its sequence; -1: a row without a token, whose numbers are not used
  // Of the sequence: [layers, key-value heads, 2, capacity, head_dim], keys before values.
  void* cache;
  std::int64_t capacity;
  const float *cos, *sin;  // [at least position + 1, head_dim / 2]: of a sequence of its length
};

struct EmbedTask {
  DecodeMatrix embedding;  // [vocab, hidden]
  DecodeMatrix positions;  // [context, hidden]; outputs 0: none
  float multiplier;        // of the embedding
  const DecodeRow* rows;
  std::int64_t count;
  float* x;  // [count, hidden]
};

void decode_embed(const EmbedTask& task, Stream stream);

// Turns the heads of q and k to their positions and writes keys and values into the caches.
template <class T>
struct PlaceTask {
  const DecodeRow* rows;
  std::int64_t count;
  float* q;        // [count, heads, head_dim], turned in place
  const float* k;  // [count, kv_heads, head_dim]
  const float* v;
  T* numbers;              // says the type of the cache alone
  const float *cos, *sin;  // tables for all rows; null: each row's own
  bool turns;              // false: no rotary positions here
  int layer, heads, kv_heads, head_dim;
};

template <class T>
void decode_place(const PlaceTask<T>& task, Stream stream);

}  // namespace omnima::kernels::cuda

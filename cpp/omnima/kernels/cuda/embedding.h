// The gradient of an embedding: rows of dy added to the table's gradient by id, without atomics.
#pragma once

#include "omnima/kernels/cuda/types.h"

namespace omnima::kernels::cuda {

// Places in the sorted list that one block adds up.
constexpr std::int64_t kEmbeddingChunk = 32;

template <class T>
struct EmbeddingBackward {
  const std::int64_t* sorted_ids;  // [count], ascending
  const std::int64_t* order;       // [count]: the row of dy that stands at each place; stable
  const T* dy;                     // [count, width]
  float* partial;                  // scratch [ceil(count / kEmbeddingChunk), width]
  float* grad;                     // [vocab, width], added to
  std::int64_t count, width;
};

template <class T>
void embedding_backward(const EmbeddingBackward<T>& task, Stream stream);

}  // namespace omnima::kernels::cuda

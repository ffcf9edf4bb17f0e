// Softmax cross-entropy over rows of logits: the loss, and in place of the logits their gradient.
#pragma once

#include "omnima/core/labels.h"
#include "omnima/kernels/cuda/types.h"

namespace omnima::kernels::cuda {

template <class T>
struct CrossEntropyTask {
  T* logits;                   // [rows, vocab], rows `stride` elements apart
  const std::int64_t* labels;  // [rows]; kIgnoredLabel: no loss, gradient zero; others outside
                               // the vocabulary: NaN for a loss, so that no step counts
  float* losses;               // [rows]
  std::int64_t rows, vocab, stride;
  float scale;         // of the gradient
  bool with_gradient;  // false: the logits stay as they are
};

template <class T>
void cross_entropy(const CrossEntropyTask<T>& task, Stream stream);

// *total += scale * sum(losses), in a fixed order.
void add_losses(const float* losses, std::int64_t rows, float scale, float* total, Stream stream);

}  // namespace omnima::kernels::cuda

// Softmax cross-entropy of one row of logits, with its gradient written over the logits.
#pragma once

#include <cstdint>

#include "omnima/kernels/cpu/cpu_features.h"
#include "omnima/kernels/cpu/number_types.h"

namespace omnima::kernels {

template <class T>
struct CrossEntropyKernels {
  // -log softmax(logits)[label].
  float (*loss)(const T* logits, std::int64_t vocab, std::int64_t label);
  // The same, with scratch [vocab]; logits become (softmax - one_hot(label)) * scale.
  float (*loss_and_gradient)(T* logits, std::int64_t vocab, std::int64_t label, float scale,
                             float* scratch);
};

// The kernels of an instruction-set level; a level without its own takes the next lower one.
template <class T>
const CrossEntropyKernels<T>& cross_entropy_kernels(Level level = active_level());

}  // namespace omnima::kernels

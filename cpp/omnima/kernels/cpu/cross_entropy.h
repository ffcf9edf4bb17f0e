// Softmax cross-entropy of one row of logits, with its gradient written over the logits.
#pragma once

#include <cstdint>

#include "omnima/kernels/cpu/cpu_features.h"
#include "omnima/kernels/cpu/number_types.h"

namespace omnima::kernels {

struct CrossEntropyRule {
  float scale;                   // of the gradient
  float label_smoothing = 0.0f;  // this share of the target is spread over the vocabulary
  float z_loss = 0.0f;           // times the square of log sum exp(logits)
};

template <class T>
struct CrossEntropyKernels {
  // -log softmax(logits)[label].
  float (*loss)(const T* logits, std::int64_t vocab, std::int64_t label);
  // The same and what the rule adds, with scratch [vocab]; logits become the loss' gradient times
  // the scale: plainly (softmax - one_hot(label)) * scale.
  float (*loss_and_gradient)(T* logits, std::int64_t vocab, std::int64_t label,
                             const CrossEntropyRule& rule, float* scratch);
};

// The kernels of an instruction-set level; a level without its own takes the next lower one.
template <class T>
const CrossEntropyKernels<T>& cross_entropy_kernels(Level level = active_level());

}  // namespace omnima::kernels

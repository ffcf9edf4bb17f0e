// What optimizers share that update each element for itself: one threaded pass over a span by a
// kernel on raw pointers, which writes the bfloat16 copy of the weights on the way.
#pragma once

#include <ATen/Parallel.h>

#include <cstddef>
#include <utility>

#include "omnima/kernels/cpu/number_types.h"
#include "omnima/nn/arena.h"
#include "omnima/ops/weight.h"
#include "omnima/optim/groups.h"
#include "omnima/optim/state_store.h"

namespace omnima::optim {

constexpr int64_t kGrain = 1 << 16;

// Whether a kernel of ours updates this arena; else plain ATen does.
inline bool by_kernel(const nn::Arena& arena) {
  return arena.weights().is_cpu() && !ops::reference_mode();
}

// A kernel writes through pointers, so a bfloat16 copy made earlier would not be seen as old.
// Returns the copy to be written along, or null.
inline kernels::bfloat16* shadow_of(nn::Arena& arena, bool with_shadow) {
  if (with_shadow) return static_cast<kernels::bfloat16*>(arena.shadow().mutable_data_ptr());
  arena.weights().unsafeGetTensorImpl()->bump_version();
  return nullptr;
}

// Calls part(first, count, shadow) for parts of the span, on all threads.
template <class Part>
void over_parts(const Span& span, kernels::bfloat16* shadow, const Part& part) {
  at::parallel_for(span.first, span.last, kGrain, [&](int64_t begin, int64_t end) {
    part(begin, end - begin, shadow == nullptr ? nullptr : shadow + begin);
  });
}

template <class ByAten, class Kernel, class Constants, std::size_t... I>
void update_slice(nn::Arena& arena, const Span& slice, const StateStore::Tensors& state,
                  kernels::bfloat16* shadow, ByAten by_aten, Kernel kernel, const Constants& c,
                  std::index_sequence<I...>) {
  const at::Tensor &weights = arena.weights(), &gradients = arena.gradients();
  if (!by_kernel(arena)) {
    return by_aten(slice.of(weights), slice.of(gradients), state[I]..., c);
  }
  over_parts(slice, shadow, [&](int64_t first, int64_t count, kernels::bfloat16* part) {
    kernel(weights.data_ptr<float>() + first, gradients.const_data_ptr<float>() + first,
           (state[I].template data_ptr<float>() + first - slice.first)..., part, count, c);
  });
}

// Updates one slice of a span, with its `kBuffers` buffers of state, by kernel(weight, gradient,
// state..., shadow, count, constants) or, where no kernel of ours serves, by by_aten(weight,
// gradient, state..., constants).
template <std::size_t kBuffers, class ByAten, class Kernel, class Constants>
void update_slice(nn::Arena& arena, const Span& slice, const StateStore::Tensors& state,
                  kernels::bfloat16* shadow, ByAten by_aten, Kernel kernel, const Constants& c) {
  update_slice(arena, slice, state, shadow, by_aten, kernel, c,
               std::make_index_sequence<kBuffers>());
}

}  // namespace omnima::optim

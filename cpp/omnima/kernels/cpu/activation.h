// The activations of the mlp, forward and backward: SwiGLU on a fused gate-up row, and GELU.
#pragma once

#include <cstdint>

#include "omnima/kernels/cpu/cpu_features.h"
#include "omnima/kernels/cpu/number_types.h"

namespace omnima::kernels {

template <class T>
struct ActivationKernels {
  // gate_up [rows, 2 * width] holds gate then up; y = silu(gate) * up [rows, width].
  void (*swiglu_forward)(const T* gate_up, T* y, std::int64_t rows, std::int64_t width);
  // Writes dgate_up; it may be the same memory as gate_up.
  void (*swiglu_backward)(const T* gate_up, const T* dy, T* dgate_up, std::int64_t rows,
                          std::int64_t width);
  // GELU by the error function, or by tanh as GPT-2 has it (Hendrycks and Gimpel 2016).
  void (*gelu_forward)(const T* x, T* y, std::int64_t count, bool by_tanh);
  void (*gelu_backward)(const T* x, const T* dy, T* dx, std::int64_t count, bool by_tanh);
};

// The kernels of an instruction-set level; a level without its own takes the next lower one.
template <class T>
const ActivationKernels<T>& activation_kernels(Level level = active_level());

}  // namespace omnima::kernels

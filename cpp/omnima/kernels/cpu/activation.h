// The activations of the mlp, forward and backward: SwiGLU and GEGLU on a fused gate-up row, GELU,
// squared ReLU; and the soft cap of scores.
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
  // The same of one row of float32 to bfloat16, as exact as that needs.
  void (*swiglu_rounded)(const float* gate_up, bfloat16* y, std::int64_t width);
  // GELU by the error function, or by tanh as GPT-2 has it (Hendrycks and Gimpel 2016).
  void (*gelu_forward)(const T* x, T* y, std::int64_t count, bool by_tanh);
  void (*gelu_backward)(const T* x, const T* dy, T* dx, std::int64_t count, bool by_tanh);
  // As swiglu with GELU in silu's place (Shazeer 2020).
  void (*geglu_forward)(const T* gate_up, T* y, std::int64_t rows, std::int64_t width,
                        bool by_tanh);
  void (*geglu_backward)(const T* gate_up, const T* dy, T* dgate_up, std::int64_t rows,
                         std::int64_t width, bool by_tanh);
  // max(x, 0)^2 (So et al. 2021).
  void (*relu2_forward)(const T* x, T* y, std::int64_t count);
  void (*relu2_backward)(const T* x, const T* dy, T* dx, std::int64_t count);
  // y = cap * tanh(x / cap); backward reads y. Both may write where they read.
  void (*soft_cap)(const T* x, T* y, std::int64_t count, float cap);
  void (*soft_cap_backward)(const T* y, const T* dy, T* dx, std::int64_t count, float cap);
};

// The kernels of an instruction-set level; a level without its own takes the next lower one.
template <class T>
const ActivationKernels<T>& activation_kernels(Level level = active_level());

}  // namespace omnima::kernels

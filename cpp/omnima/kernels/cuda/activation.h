// SwiGLU and GELU, forward and backward; arithmetic in float32.
#pragma once

#include "omnima/kernels/cuda/types.h"

namespace omnima::kernels::cuda {

// gate_up [rows, 2 * width], gate first -> y [rows, width] = silu(gate) * up.
template <class T>
void swiglu_forward(const T* gate_up, T* y, std::int64_t rows, std::int64_t width, Stream stream);
// Writes dgate_up, which may be gate_up itself.
template <class T>
void swiglu_backward(const T* gate_up, const T* dy, T* dgate_up, std::int64_t rows,
                     std::int64_t width, Stream stream);

template <class T>
void gelu_forward(const T* x, T* y, std::int64_t count, bool by_tanh, Stream stream);
// Writes dx, which may be x itself.
template <class T>
void gelu_backward(const T* x, const T* dy, T* dx, std::int64_t count, bool by_tanh, Stream stream);

}  // namespace omnima::kernels::cuda

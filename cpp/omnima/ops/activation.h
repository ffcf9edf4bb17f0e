// SwiGLU (Shazeer 2020) and GELU (Hendrycks and Gimpel 2016).
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace omnima::ops {

enum class Activation { kSwiglu, kGelu, kGeluTanh };

// Of the name that a model's configuration gives: swiglu, gelu or gelu_tanh.
Activation activation_of(const std::string& name);

at::Tensor activate(const at::Tensor& x, Activation activation);
// gate_up [..., 2 * width], gate first -> silu(gate) * up [..., width].
at::Tensor swiglu(const at::Tensor& gate_up);
at::Tensor gelu(const at::Tensor& x, bool by_tanh);

// How many numbers of the output come of `inputs` of the input.
int64_t activated_size(int64_t inputs, Activation activation);

}  // namespace omnima::ops

// SwiGLU and GEGLU (Shazeer 2020), GELU (Hendrycks and Gimpel 2016), squared ReLU (So et al. 2021),
// and the soft cap of logits (Gemma 2, 2024).
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

namespace omnima::ops {

enum class Activation { kSwiglu, kGelu, kGeluTanh, kGeglu, kGegluTanh, kRelu2 };

// Of the name that a model's configuration gives.
Activation activation_of(const std::string& name);
// Whether the input holds a gate beside what it lets through.
bool is_gated(Activation activation);

at::Tensor activate(const at::Tensor& x, Activation activation);
// gate_up [..., 2 * width], gate first -> silu(gate) * up [..., width].
at::Tensor swiglu(const at::Tensor& gate_up);
at::Tensor gelu(const at::Tensor& x, bool by_tanh);
// gate_up [..., 2 * width] -> gelu(gate) * up [..., width].
at::Tensor geglu(const at::Tensor& gate_up, bool by_tanh);
at::Tensor relu2(const at::Tensor& x);
// cap * tanh(x / cap); a cap of 0 leaves x as it is.
at::Tensor soft_cap(const at::Tensor& x, double cap);

// How many numbers of the output come of `inputs` of the input.
int64_t activated_size(int64_t inputs, Activation activation);

}  // namespace omnima::ops

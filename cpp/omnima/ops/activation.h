// SwiGLU (Shazeer 2020) and GELU.
#pragma once

#include <ATen/core/Tensor.h>

namespace omnima::ops {

// gate_up [..., 2 * width], gate first -> silu(gate) * up [..., width].
at::Tensor swiglu(const at::Tensor& gate_up);
at::Tensor gelu(const at::Tensor& x, bool by_tanh);

}  // namespace omnima::ops

// The plain ATen meaning of each operator: what the fast versions are checked against, and what
// runs on devices without kernels of ours or with OMNIMA_REFERENCE=1.
#pragma once

#include <ATen/core/Tensor.h>

#include "omnima/ops/attention.h"
#include "omnima/ops/linear_cross_entropy.h"
#include "omnima/ops/linear_divergence.h"

namespace omnima::ops::reference {

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);
at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                      double eps);
at::Tensor swiglu(const at::Tensor& gate_up);
at::Tensor gelu(const at::Tensor& x, bool by_tanh);
at::Tensor geglu(const at::Tensor& gate_up, bool by_tanh);
at::Tensor relu2(const at::Tensor& x);
at::Tensor soft_cap(const at::Tensor& x, double cap);
at::Tensor attention(const at::Tensor& qkv, const AttentionShape& shape, const Positions& positions,
                     const AttentionOptions& options = {});
// What each token takes from which: float32 [batch, heads, time, time], whose rows sum to 1.
at::Tensor attention_weights(const at::Tensor& qkv, const AttentionShape& shape,
                             const Positions& positions, const AttentionOptions& options = {});
// Sum over rows whose label is not -100 of -log softmax(soft_cap(hidden weight^T))[label] and the
// terms, times scale.
at::Tensor linear_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight,
                                const at::Tensor& labels, double scale,
                                const LossTerms& terms = {});
// The same sum of divergences between the softmax of its logits and that of a teacher's.
at::Tensor linear_divergence(const at::Tensor& hidden, const at::Tensor& weight,
                             const at::Tensor& teacher_hidden, const at::Tensor& teacher_weight,
                             const at::Tensor& labels, double scale, const Divergence& divergence);

}  // namespace omnima::ops::reference

// The operators on CUDA tensors: autograd functions over kernels/cuda and ATen's products.
#pragma once

#include "omnima/ops/attention.h"
#include "omnima/ops/weight.h"

namespace omnima::ops::cuda {

at::Tensor rms_norm(const at::Tensor& x, const Weight& weight, double eps);
at::Tensor layer_norm(const at::Tensor& x, const Weight& weight, const Weight& bias, double eps);
at::Tensor swiglu(const at::Tensor& gate_up);
at::Tensor gelu(const at::Tensor& x, bool by_tanh);
at::Tensor embedding(const at::Tensor& ids, const Weight& weight);

// In bfloat16 by ATen's flash attention, else the plain meaning. qkv is turned where it lies unless
// it is an autograd leaf that wants a gradient: whoever computed it must not use it again.
at::Tensor attention(const at::Tensor& qkv, const AttentionShape& shape,
                     const Positions& positions);

at::Tensor linear_cross_entropy(const at::Tensor& hidden, const Weight& weight,
                                const at::Tensor& labels, double scale);
// The same with a given bound on the logits that are held at once.
at::Tensor linear_cross_entropy_by(const at::Tensor& hidden, const Weight& weight,
                                   const at::Tensor& labels, double scale, int64_t most_logits);
// How many of `rows` rows a chunk takes, so that chunks are alike and hold most_logits at most (or
// 128 rows).
int64_t chunk_rows(int64_t rows, int64_t vocab, int64_t most_logits);

}  // namespace omnima::ops::cuda

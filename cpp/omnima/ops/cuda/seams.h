// What of the device cannot run without one: streams, ATen's flash attention, and products that
// ATen has for CUDA only. The tests put CPU versions in their place and run all else of this
// folder.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/DeviceGuard.h>

#include "omnima/kernels/cuda/types.h"

namespace omnima::ops::cuda {

// Whether x lies where the kernels of this folder run.
bool on_device(const at::Tensor& x);
kernels::cuda::Stream current_stream(const at::Device& device);
// Throws where the launches since the last check failed.
void check_launches();

// grad += dy^T x with sums and result in float32.
void add_outer(const at::Tensor& grad, const at::Tensor& dy, const at::Tensor& x);

// Where documents begin in the flattened tokens of a batch.
struct Documents {
  at::Tensor starts;    // int32 [documents + 1], the last is the number of tokens; undefined: each
                        // row is one document
  int64_t longest = 0;  // tokens
};

// q [batch, time, heads, head_dim], k and v with their own number of heads; causal. With documents
// [tokens, heads, head_dim].
struct Flash {
  at::Tensor q, k, v;
  Documents documents;
  at::Tensor out, logsumexp, rng_state, unused;  // filled by flash_forward
};

bool flash_fits(const at::Tensor& qkv, int64_t head_dim);
void flash_forward(Flash& flash);
// The gradients of q, k and v, contiguous.
std::vector<at::Tensor> flash_backward(const Flash& flash, const at::Tensor& dout);

// Runs f(stream) on x's device.
template <class F>
void on_stream(const at::Tensor& x, F f) {
  const c10::DeviceGuard guard(x.device());
  f(current_stream(x.device()));
  check_launches();
}

}  // namespace omnima::ops::cuda

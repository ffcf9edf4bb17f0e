#include "omnima/ops/cuda/seams.h"

#include <ATen/cuda/CUDAContext.h>
#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/mm.h>
#include <c10/cuda/CUDAException.h>

namespace omnima::ops::cuda {

bool on_device(const at::Tensor& x) { return x.is_cuda(); }

kernels::cuda::Stream current_stream(const at::Device& device) {
  return at::cuda::getCurrentCUDAStream(device.index()).stream();
}

void check_launches() { C10_CUDA_KERNEL_LAUNCH_CHECK(); }

void add_outer(const at::Tensor& grad, const at::Tensor& dy, const at::Tensor& x) {
  if (dy.scalar_type() == at::kFloat) {
    at::Tensor(grad).addmm_(dy.t(), x);
  } else {
    grad.add_(at::mm(dy.t(), x, at::kFloat));
  }
}

// Flash attention in ATen runs bfloat16 from Ampere on, with heads of up to 256 elements.
bool flash_fits(const at::Tensor& qkv, int64_t head_dim) {
  return qkv.scalar_type() == at::kBFloat16 && head_dim % 8 == 0 && head_dim <= 256 &&
         at::cuda::getDeviceProperties(qkv.get_device())->major >= 8;
}

namespace {

std::optional<at::Tensor> given(const at::Tensor& x) {
  return x.defined() ? std::optional(x) : std::nullopt;
}

int64_t longest(const Flash& flash) {
  return flash.documents.starts.defined() ? flash.documents.longest : flash.q.size(1);
}

}  // namespace

void flash_forward(Flash& flash) {
  const auto starts = given(flash.documents.starts);
  const int64_t most = longest(flash);
  auto result = at::_flash_attention_forward(flash.q, flash.k, flash.v, starts, starts, most, most,
                                             /*dropout_p=*/0.0, /*is_causal=*/true,
                                             /*return_debug_mask=*/false);
  flash.out = std::get<0>(result);
  flash.logsumexp = std::get<1>(result);
  flash.rng_state = std::get<2>(result);
  flash.unused = std::get<3>(result);
}

std::vector<at::Tensor> flash_backward(const Flash& flash, const at::Tensor& dout) {
  const int64_t most = longest(flash);
  const auto [dq, dk, dv] = at::_flash_attention_backward(
      dout, flash.q, flash.k, flash.v, flash.out, flash.logsumexp, flash.documents.starts,
      flash.documents.starts, most, most, /*dropout_p=*/0.0, /*is_causal=*/true, flash.rng_state,
      flash.unused);
  return {dq.contiguous(), dk.contiguous(), dv.contiguous()};
}

}  // namespace omnima::ops::cuda

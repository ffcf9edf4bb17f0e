#include "omnima/ops/attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <torch/csrc/autograd/custom_function.h>

#include "omnima/kernels/cuda/rotary.h"
#include "omnima/ops/cuda/operators.h"
#include "omnima/ops/cuda/seams.h"
#include "omnima/ops/dispatch.h"
#include "omnima/ops/reference.h"

namespace omnima::ops::cuda {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

const float* floats(const at::Tensor& x) {
  return x.defined() ? x.const_data_ptr<float>() : nullptr;
}

// The documents of packed rows; each row begins one.
Documents documents_of(const Positions& positions) {
  if (!positions.ids.defined()) return {};
  if (positions.document_starts.defined()) {
    return {positions.document_starts, positions.longest_document};
  }
  // Not made on the way by the model: the device is asked, which waits for it.
  const at::Tensor firsts = positions.ids.reshape({-1}).eq(0).nonzero().reshape({-1});
  const at::Tensor end = at::full({1}, positions.ids.numel(), firsts.options());
  return {at::cat({firsts, end}).to(at::kInt), positions.ids.max().item<int64_t>() + 1};
}

// q, k and v as views of the packed projection.
Flash views_of(const at::Tensor& packed, const AttentionShape& shape, const Documents& documents) {
  const int64_t batch = packed.size(0), time = packed.size(1);
  const auto part = [&](int64_t first, int64_t count) {
    const at::Tensor view = packed.narrow(2, first * shape.head_dim, count * shape.head_dim)
                                .view({batch, time, count, shape.head_dim});
    return documents.starts.defined() ? view.flatten(0, 1) : view;
  };
  return {part(0, shape.heads),
          part(shape.heads, shape.kv_heads),
          part(shape.heads + shape.kv_heads, shape.kv_heads),
          documents,
          {},
          {},
          {},
          {}};
}

// What of the rotary turn does not depend on its direction.
template <class T>
kernels::cuda::RotaryTask<T> task_of(const at::Tensor& packed, const AttentionShape& shape,
                                     const Positions& positions) {
  auto task = kernels::cuda::rotary_in_place(
      data<T>(packed), packed.size(0) * packed.size(1), static_cast<int>(shape.heads),
      static_cast<int>(shape.kv_heads), static_cast<int>(shape.head_dim));
  task.time = packed.size(1);
  task.positions = positions.ids.defined() ? positions.ids.const_data_ptr<int64_t>() : nullptr;
  task.cos = floats(positions.cos);
  task.sin = floats(positions.sin);
  return task;
}

struct AttentionFunction : torch::autograd::Function<AttentionFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input,
                            const AttentionShape& shape, const Positions& positions) {
    const bool keep = input.requires_grad() && input.is_leaf();
    at::Tensor packed = keep ? input.clone(at::MemoryFormat::Contiguous) : input.contiguous();
    by_dtype(packed, "attention", [&]<class T>(T*) {
      const auto task = task_of<T>(packed, shape, positions);
      on_stream(packed, [&](auto stream) { kernels::cuda::rotary(task, stream); });
    });
    packed.unsafeGetTensorImpl()->bump_version();
    Flash flash = views_of(packed, shape, documents_of(positions));
    flash_forward(flash);
    auto& saved = context->saved_data;
    saved["packed"] = packed.detach();
    saved["out"] = flash.out;
    saved["logsumexp"] = flash.logsumexp;
    saved["rng_state"] = flash.rng_state;
    saved["unused"] = flash.unused;
    saved["starts"] = flash.documents.starts;
    saved["longest"] = flash.documents.longest;
    saved["ids"] = positions.ids;
    saved["cos"] = positions.cos;
    saved["sin"] = positions.sin;
    saved["shape"] = std::vector<int64_t>{shape.heads, shape.kv_heads, shape.head_dim};
    return flash.out.reshape({packed.size(0), packed.size(1), shape.heads * shape.head_dim});
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    auto& saved = context->saved_data;
    const auto dims = saved["shape"].toIntVector();
    const AttentionShape shape{dims[0], dims[1], dims[2]};
    Positions positions;
    positions.ids = saved["ids"].toTensor();
    positions.cos = saved["cos"].toTensor();
    positions.sin = saved["sin"].toTensor();
    const at::Tensor packed = saved["packed"].toTensor();
    Flash flash = views_of(packed, shape, {saved["starts"].toTensor(), saved["longest"].toInt()});
    flash.out = saved["out"].toTensor();
    flash.logsumexp = saved["logsumexp"].toTensor();
    flash.rng_state = saved["rng_state"].toTensor();
    flash.unused = saved["unused"].toTensor();
    const auto parts = flash_backward(flash, grads[0].contiguous().view(flash.out.sizes()));
    const at::Tensor dqkv = at::empty_like(packed);
    by_dtype(packed, "attention", [&]<class T>(T*) {
      auto task = task_of<T>(dqkv, shape, positions);
      task.q = data<T>(parts[0]);
      task.k = data<T>(parts[1]);
      task.v = data<T>(parts[2]);
      task.q_stride = shape.heads * shape.head_dim;
      task.k_stride = task.v_stride = shape.kv_heads * shape.head_dim;
      task.inverse = true;
      on_stream(packed, [&](auto stream) { kernels::cuda::rotary(task, stream); });
    });
    return {dqkv, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor attention(const at::Tensor& qkv, const AttentionShape& shape,
                     const Positions& positions) {
  if (!flash_fits(qkv, shape.head_dim)) return reference::attention(qkv, shape, positions);
  Positions contiguous = positions;
  if (positions.ids.defined()) contiguous.ids = positions.ids.contiguous();
  return AttentionFunction::apply(qkv, shape, contiguous);
}

}  // namespace omnima::ops::cuda

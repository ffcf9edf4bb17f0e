#include "omnima/ops/attention.h"

#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "omnima/kernels/cpu/rotary.h"
#include "omnima/ops/dispatch.h"
#include "omnima/ops/reference.h"

namespace omnima::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Turns the q and k heads of every token in place; sign -1 turns gradients back.
void turn_in_place(const at::Tensor& qkv, const AttentionShape& shape, const at::Tensor& ids,
                   const at::Tensor& cos, const at::Tensor& sin, float sign) {
  if (!cos.defined()) return;
  const int64_t tokens = qkv.size(0) * qkv.size(1), time = qkv.size(1), width = qkv.size(2);
  const int64_t half = shape.head_dim / 2;
  const int64_t* id = ids.defined() ? ids.const_data_ptr<int64_t>() : nullptr;
  by_dtype(qkv, "attention", [&]<class T>(T*) {
    at::parallel_for(0, tokens, row_grain(width), [&](int64_t begin, int64_t end) {
      for (int64_t token = begin; token < end; ++token) {
        const int64_t at = (id != nullptr ? id[token] : token % time) * half;
        kernels::rotary_kernels<T>().rotate(
            data<T>(qkv) + token * width, shape.heads + shape.kv_heads, shape.head_dim,
            cos.const_data_ptr<float>() + at, sin.const_data_ptr<float>() + at, sign);
      }
    });
  });
}

struct Heads {
  at::Tensor q, k, v;  // [batch, heads, time, head_dim]; k and v repeated to as many heads as q
};

at::Tensor heads_view(const at::Tensor& qkv, int64_t first, int64_t count, int64_t head_dim) {
  return qkv.narrow(-1, first * head_dim, count * head_dim)
      .view({qkv.size(0), qkv.size(1), count, head_dim})
      .transpose(1, 2);
}

Heads split(const at::Tensor& qkv, const AttentionShape& shape) {
  Heads parts{heads_view(qkv, 0, shape.heads, shape.head_dim),
              heads_view(qkv, shape.heads, shape.kv_heads, shape.head_dim),
              heads_view(qkv, shape.heads + shape.kv_heads, shape.kv_heads, shape.head_dim)};
  if (shape.kv_heads != shape.heads) {
    parts.k = parts.k.repeat_interleave(shape.heads / shape.kv_heads, 1);
    parts.v = parts.v.repeat_interleave(shape.heads / shape.kv_heads, 1);
  }
  return parts;
}

// Sums the gradients of the copies of a key-value head: [batch, heads, …] -> [batch, kv_heads, …].
at::Tensor sum_groups(const at::Tensor& grad, const AttentionShape& shape) {
  if (shape.kv_heads == shape.heads) return grad;
  return grad
      .reshape(
          {grad.size(0), shape.kv_heads, shape.heads / shape.kv_heads, grad.size(2), grad.size(3)})
      .sum(2);
}

std::optional<at::Tensor> optional(const at::Tensor& x) {
  return x.defined() ? std::optional<at::Tensor>(x) : std::nullopt;
}

struct AttentionFunction : torch::autograd::Function<AttentionFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& qkv,
                            const AttentionShape& shape, const Positions& positions) {
    turn_in_place(qkv, shape, positions.ids, positions.cos, positions.sin, 1.0f);
    const Heads parts = split(qkv, shape);
    const bool causal = !positions.mask.defined();
    auto [out, logsumexp] = at::_scaled_dot_product_flash_attention_for_cpu(
        parts.q, parts.k, parts.v, 0.0, causal, optional(positions.mask));
    context->save_for_backward({qkv});
    auto& saved = context->saved_data;
    saved["out"] = out;
    saved["logsumexp"] = logsumexp;
    saved["ids"] = positions.ids;
    saved["cos"] = positions.cos;
    saved["sin"] = positions.sin;
    saved["mask"] = positions.mask;
    saved["shape"] = std::vector<int64_t>{shape.heads, shape.kv_heads, shape.head_dim};
    return out.transpose(1, 2).reshape({qkv.size(0), qkv.size(1), shape.heads * shape.head_dim});
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const at::Tensor qkv = context->get_saved_variables()[0];
    auto& saved = context->saved_data;
    const auto dims = saved["shape"].toIntVector();
    const AttentionShape shape{dims[0], dims[1], dims[2]};
    const at::Tensor mask = saved["mask"].toTensor();
    const Heads parts = split(qkv, shape);
    const at::Tensor dy =
        grads[0].reshape({qkv.size(0), qkv.size(1), shape.heads, shape.head_dim}).transpose(1, 2);
    const auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
        dy, parts.q, parts.k, parts.v, saved["out"].toTensor(), saved["logsumexp"].toTensor(), 0.0,
        !mask.defined(), optional(mask));
    const at::Tensor dqkv = at::empty_like(qkv);
    heads_view(dqkv, 0, shape.heads, shape.head_dim).copy_(dq);
    heads_view(dqkv, shape.heads, shape.kv_heads, shape.head_dim).copy_(sum_groups(dk, shape));
    heads_view(dqkv, shape.heads + shape.kv_heads, shape.kv_heads, shape.head_dim)
        .copy_(sum_groups(dv, shape));
    turn_in_place(dqkv, shape, saved["ids"].toTensor(), saved["cos"].toTensor(),
                  saved["sin"].toTensor(), -1.0f);
    return {dqkv, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor attention(const at::Tensor& qkv, const AttentionShape& shape,
                     const Positions& positions) {
  if (!qkv.is_cpu() || reference_mode()) return reference::attention(qkv, shape, positions);
  return AttentionFunction::apply(qkv, shape, positions);
}

}  // namespace omnima::ops

#include "omnima/ops/head_norm.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include "omnima/kernels/cpu/norm.h"
#include "omnima/ops/device_ops.h"
#include "omnima/ops/dispatch.h"
#include "omnima/ops/row_parts.h"
#include "omnima/ops/saved.h"

namespace omnima::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Where the parts of a token lie: first the query heads, then the key heads, then the values.
struct Heads {
  at::Tensor weight[2], grad[2];  // of queries, of keys
  int64_t count[2];               // norms of a token
  int64_t size[2];                // numbers of a norm
  int64_t width;                  // of a token
  float eps;
  at::Tensor rstd{};  // float32 [tokens, norms of queries and keys]

  int64_t norms() const { return count[0] + count[1]; }
  int64_t normed() const { return count[0] * size[0] + count[1] * size[1]; }
  kernels::NormShape shape(int part) const { return {count[part], size[part], eps}; }
  float* statistics(int64_t token, int part) const {
    return rstd.data_ptr<float>() + token * norms() + (part == 0 ? 0 : count[0]);
  }
  int64_t place(int64_t token, int part) const {
    return token * width + (part == 0 ? 0 : count[0] * size[0]);
  }
  template <class T>
  void copy_values(const T* from, T* to, int64_t token) const {
    const int64_t first = token * width + normed();
    std::copy(from + first, from + (token + 1) * width, to + first);
  }
};

struct HeadNormFunction : torch::autograd::Function<HeadNormFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input, const at::Tensor&,
                            const at::Tensor&, Heads heads) {
    const core::Scope scope("head_norm.forward", 0, 2 * bytes_of(input));
    const at::Tensor x = input.contiguous(), y = at::empty_like(x);
    const int64_t tokens = x.numel() / heads.width;
    heads.rstd = at::empty({tokens * heads.norms()}, x.options().dtype(at::kFloat));
    by_dtype(x, "head_norm", [&]<class T>(T*) {
      at::parallel_for(0, tokens, row_grain(heads.width), [&](int64_t begin, int64_t end) {
        for (int64_t token = begin; token < end; ++token) {
          for (const int part : {0, 1}) {
            const int64_t at = heads.place(token, part);
            kernels::norm_kernels<T>().rms_forward(
                data<T>(x) + at, heads.weight[part].const_data_ptr<float>(), data<T>(y) + at,
                heads.statistics(token, part), heads.shape(part));
          }
          heads.copy_values(data<T>(x), data<T>(y), token);
        }
      });
    });
    context->save_for_backward({x});
    keep(context, heads);
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const at::Tensor x = context->get_saved_variables()[0], dy = grads[0].contiguous();
    const core::Scope scope("head_norm.backward", 0, 3 * bytes_of(x));
    const auto heads = kept<Heads>(context);
    const at::Tensor dx = at::empty_like(x);
    const int64_t tokens = x.numel() / heads.width, parts = parts_of(tokens);
    at::Tensor partial[2];
    for (const int part : {0, 1}) {
      partial[part] = at::zeros({parts, heads.size[part]}, x.options().dtype(at::kFloat));
    }
    by_dtype(x, "head_norm", [&]<class T>(T*) {
      in_parts(tokens, [&](int64_t share, int64_t begin, int64_t end) {
        for (int64_t token = begin; token < end; ++token) {
          for (const int part : {0, 1}) {
            const int64_t at = heads.place(token, part);
            kernels::norm_kernels<T>().rms_backward(
                data<T>(x) + at, heads.weight[part].const_data_ptr<float>(),
                heads.statistics(token, part), data<T>(dy) + at, data<T>(dx) + at,
                partial[part].data_ptr<float>() + share * heads.size[part], heads.shape(part));
          }
          heads.copy_values(data<T>(dy), data<T>(dx), token);
        }
      });
    });
    return {dx, give_gradient(partial[0], heads.grad[0]), give_gradient(partial[1], heads.grad[1]),
            at::Tensor()};
  }
};

// On devices and as the reference: three parts, two of them through the norm of rows.
at::Tensor by_parts(const at::Tensor& qkv, const AttentionShape& shape, const NormWeight& queries,
                    const NormWeight& keys) {
  const int64_t q = shape.heads * shape.head_dim, k = shape.kv_heads * shape.head_dim;
  const auto normed = [&](int64_t first, int64_t width, const NormWeight& weight) {
    const at::Tensor part = qkv.narrow(-1, first, width).contiguous();
    return norm(part.view({-1, weight.weight.compute.numel()}), weight).view(part.sizes());
  };
  return at::cat({normed(0, q, queries), normed(q, k, keys), qkv.narrow(-1, q + k, k)}, -1);
}

}  // namespace

at::Tensor head_norm(const at::Tensor& qkv, const AttentionShape& shape, const NormWeight& queries,
                     const NormWeight& keys) {
  const auto& [heads, kv_heads, head_dim] = shape;
  const int64_t width = (heads + 2 * kv_heads) * head_dim;
  core::require(qkv.dim() > 0 && qkv.size(-1) == width, "head_norm takes [..., ", width, "] for ",
                heads, " query and ", kv_heads, " key-value heads of ", head_dim,
                " elements, not the shape ", qkv.sizes(), ".");
  const int64_t parts[2] = {heads * head_dim, kv_heads * head_dim};
  const int64_t sizes[2] = {queries.weight.compute.numel(), keys.weight.compute.numel()};
  const bool by_head = sizes[0] == head_dim && sizes[1] == head_dim;
  core::require(!queries.is_layer_norm() && !keys.is_layer_norm() &&
                    (by_head || (sizes[0] == parts[0] && sizes[1] == parts[1])),
                "head_norm takes RMSNorm weights of ", head_dim, " elements each, or of ", parts[0],
                " for the queries and ", parts[1], " for the keys, not of ", sizes[0], " and ",
                sizes[1], ".");
  if (runs_plain(qkv)) return by_parts(qkv, shape, queries, keys);
  return HeadNormFunction::apply(qkv, queries.weight.leaves[0], keys.weight.leaves[0],
                                 Heads{{queries.weight.compute, keys.weight.compute},
                                       {queries.weight.grad, keys.weight.grad},
                                       {parts[0] / sizes[0], parts[1] / sizes[1]},
                                       {sizes[0], sizes[1]},
                                       width,
                                       static_cast<float>(queries.eps)});
}

}  // namespace omnima::ops

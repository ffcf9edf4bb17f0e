#include "omnima/ops/attention.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "omnima/core/buffer.h"
#include "omnima/core/mix.h"
#include "omnima/kernels/cpu/attention.h"
#include "omnima/ops/device_ops.h"
#include "omnima/ops/dispatch.h"
#include "omnima/ops/reference.h"
#include "omnima/ops/saved.h"

namespace omnima::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The products of what is seen of the lower triangle; backward makes the scores anew and four
// products of theirs.
double attention_flops(const at::Tensor& qkv, const AttentionShape& shape,
                       const AttentionOptions& options, double products) {
  return 2 * products * static_cast<double>(qkv.size(0) * shape.head_dim) *
         core::seen_pairs(qkv.size(1), shape.heads, options.window, options.blocks);
}

// Of all heads of a row: a head adds its number.
uint64_t dropout_seed(const AttentionOptions& options, int64_t row) {
  return core::mix(options.dropout_seed, static_cast<uint64_t>(row));
}

thread_local core::Buffer scratch_buffer;  // kept between calls

struct Saved {
  at::Tensor qkv, out, logsumexp;  // logsumexp [batch, kv_heads, heads / kv_heads, time]
  Positions positions;
  AttentionShape shape;
  AttentionOptions options;
};

// The task of one row and one key-value head.
template <class T>
kernels::AttentionTask<T> task_of(const Saved& s, int64_t row, int64_t kv_head) {
  const auto& [heads, kv_heads, head_dim] = s.shape;
  const int64_t time = s.qkv.size(1), stride = s.qkv.size(2), group = heads / kv_heads;
  T* token = data<T>(s.qkv) + row * time * stride;
  const auto float_or_null = [](const at::Tensor& x) {
    return x.defined() ? x.const_data_ptr<float>() : nullptr;
  };
  return {
      time,
      head_dim,
      group,
      stride,
      heads * head_dim,
      token + kv_head * group * head_dim,
      token + (heads + kv_head) * head_dim,
      token + (heads + kv_heads + kv_head) * head_dim,
      data<T>(s.out) + row * time * heads * head_dim + kv_head * group * head_dim,
      s.logsumexp.data_ptr<float>() + (row * kv_heads + kv_head) * group * time,
      s.positions.ids.defined() ? s.positions.ids.const_data_ptr<int64_t>() + row * time : nullptr,
      float_or_null(s.positions.cos),
      float_or_null(s.positions.sin),
      static_cast<float>(s.options.scale_for(head_dim)),
      s.options.window,
      static_cast<float>(s.options.softcap),
      s.options.slopes.defined() ? s.options.slopes.const_data_ptr<float>() + kv_head * group
                                 : nullptr,
      static_cast<float>(s.options.dropout),
      s.options.bias.defined()
          ? s.options.bias.const_data_ptr<float>() + kv_head * group * s.options.bias.size(1)
          : nullptr,
      s.options.bias.defined() ? s.options.bias.size(1) : 0,
      dropout_seed(s.options, row) + static_cast<uint64_t>(kv_head * group),
      s.options.blocks,
      kv_head * group};
}

// Every row and key-value head is one task; f(task, row, kv_head, scratch).
template <class T, class F>
void for_tasks(const Saved& s, F f) {
  const int64_t kv_heads = s.shape.kv_heads;
  at::parallel_for(0, s.qkv.size(0) * kv_heads, 1, [&](int64_t begin, int64_t end) {
    void* scratch = scratch_buffer.get(
        kernels::attention_kernels<T>().scratch_bytes(s.qkv.size(1), s.shape.head_dim));
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / kv_heads, kv_head = i % kv_heads;
      f(task_of<T>(s, row, kv_head), row, kv_head, scratch);
    }
  });
}

at::Tensor bias_gradient(const at::Tensor& bias, const at::Tensor& by_row) {
  if (!by_row.defined()) return {};
  const at::Tensor all = at::zeros_like(bias);
  all.narrow(1, 0, by_row.size(2)).copy_(by_row.sum(0));
  return all;
}

struct AttentionFunction : torch::autograd::Function<AttentionFunction> {
  // The list holds the bias where there is one.
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input, at::TensorList,
                            const AttentionShape& shape, const Positions& positions,
                            const AttentionOptions& options) {
    const double out_bytes = bytes_of(input) * static_cast<double>(shape.heads) /
                             static_cast<double>(shape.heads + 2 * shape.kv_heads);
    const core::Scope scope("attention.forward", attention_flops(input, shape, options, 2),
                            bytes_of(input) + out_bytes);
    const at::Tensor qkv = input.contiguous();
    const int64_t batch = qkv.size(0), time = qkv.size(1);
    const Saved s{qkv,
                  at::empty({batch, time, shape.heads * shape.head_dim}, qkv.options()),
                  at::empty({batch * shape.heads * time}, qkv.options().dtype(at::kFloat)),
                  {positions.ids.defined() ? positions.ids.contiguous() : at::Tensor(),
                   positions.cos, positions.sin},
                  shape,
                  options};
    by_dtype(qkv, "attention", [&]<class T>(T*) {
      for_tasks<T>(s, [](const auto& task, int64_t, int64_t, void* scratch) {
        kernels::attention_kernels<T>().forward(task, scratch);
      });
    });
    context->save_for_backward({qkv, s.out});
    auto& saved = context->saved_data;
    saved["logsumexp"] = s.logsumexp;
    saved["ids"] = s.positions.ids;
    saved["cos"] = positions.cos;
    saved["sin"] = positions.sin;
    saved["shape"] = std::vector<int64_t>{shape.heads, shape.kv_heads, shape.head_dim};
    AttentionOptions kept_options = options;
    if (options.bias.defined()) kept_options.bias = options.bias.detach();
    keep(context, kept_options);
    return s.out;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto tensors = context->get_saved_variables();
    auto& saved = context->saved_data;
    const auto dims = saved["shape"].toIntVector();
    const Saved s{tensors[0],
                  tensors[1],
                  saved["logsumexp"].toTensor(),
                  {saved["ids"].toTensor(), saved["cos"].toTensor(), saved["sin"].toTensor()},
                  {dims[0], dims[1], dims[2]},
                  kept<AttentionOptions>(context)};
    const core::Scope scope("attention.backward", attention_flops(s.qkv, s.shape, s.options, 5),
                            2 * bytes_of(s.qkv, s.out));
    const at::Tensor dout = grads[0].contiguous(), dqkv = at::empty_like(s.qkv);
    const bool learns_bias = s.options.bias.defined() && context->needs_input_grad(1);
    at::Tensor dbias;  // of every row, so that sums do not depend on threads
    if (learns_bias) {
      dbias = at::zeros({s.qkv.size(0), s.shape.heads, s.qkv.size(1)}, s.options.bias.options());
    }
    by_dtype(s.qkv, "attention", [&]<class T>(T*) {
      for_tasks<T>(s, [&](const auto& task, int64_t row, int64_t kv_head, void* scratch) {
        const int64_t group = s.shape.heads / s.shape.kv_heads, dim = s.shape.head_dim;
        T* at = data<T>(dqkv) + row * task.time * task.stride;
        kernels::attention_kernels<T>().backward(
            task,
            {data<T>(dout) + row * task.time * task.out_stride + kv_head * group * dim,
             at + kv_head * group * dim, at + (s.shape.heads + kv_head) * dim,
             at + (s.shape.heads + s.shape.kv_heads + kv_head) * dim,
             learns_bias
                 ? dbias.data_ptr<float>() + (row * s.shape.heads + kv_head * group) * task.time
                 : nullptr},
            scratch);
      });
    });
    variable_list result{dqkv};
    if (s.options.bias.defined()) result.push_back(bias_gradient(s.options.bias, dbias));
    result.resize(result.size() + 3);  // shape, positions and options
    return result;
  }
};

void check_options(int64_t time, const AttentionShape& shape, const AttentionOptions& options) {
  const auto& [window, softcap, slopes, dropout, seed, bias, causal, blocks, scale] = options;
  core::require(window >= 0 && softcap >= 0 && dropout >= 0 && dropout < 1 && scale >= 0,
                "attention takes a window, a softcap and a scale of at least 0 and a dropout below "
                "1, not ",
                window, ", ", softcap, ", ", scale, " and ", dropout, ".");
  core::require(causal || !(slopes.defined() || bias.defined()),
                "attention that sees both sides takes neither slopes nor a bias by distance.");
  core::require(blocks.size >= 0 && blocks.local > 0 && blocks.stride > 0 && blocks.shift >= 0,
                "a pattern of blocks has a size and a shift of at least 0, and a number of local "
                "blocks and a stride of at least 1, not ",
                blocks.size, ", ", blocks.shift, ", ", blocks.local, " and ", blocks.stride, ".");
  core::require(causal || blocks.size == 0,
                "attention that sees both sides takes no pattern of blocks, which looks back.");
  core::require(!slopes.defined() || (slopes.scalar_type() == at::kFloat && slopes.dim() == 1 &&
                                      slopes.size(0) == shape.heads && slopes.is_contiguous()),
                "attention takes one float32 slope a query head, ", shape.heads, " of them.");
  core::require(!bias.defined() || (bias.scalar_type() == at::kFloat && bias.dim() == 2 &&
                                    bias.size(0) == shape.heads && bias.size(1) >= time),
                "attention takes a float32 bias of at least ", time, " distances for each of its ",
                shape.heads, " query heads.");
}

void check(const at::Tensor& qkv, const AttentionShape& shape, const Positions& positions) {
  const auto& [heads, kv_heads, head_dim] = shape;
  core::require(heads > 0 && kv_heads > 0 && heads % kv_heads == 0, "attention has ", heads,
                " query heads, which ", kv_heads, " key-value heads cannot share equally.");
  core::require(qkv.dim() == 3 && qkv.size(2) == (heads + 2 * kv_heads) * head_dim,
                "attention takes [batch, time, ", (heads + 2 * kv_heads) * head_dim, "] for ",
                heads, " query and ", kv_heads, " key-value heads of ", head_dim,
                " elements, not the shape ", qkv.sizes(), ".");
  core::require(!positions.ids.defined() || (positions.ids.scalar_type() == at::kLong &&
                                             positions.ids.sizes() == qkv.sizes().slice(0, 2)),
                "attention takes int64 positions of the shape [batch, time].");
  if (!positions.cos.defined()) return;
  for (const at::Tensor* table : {&positions.cos, &positions.sin}) {
    core::require(table->dim() == 2 && table->size(0) >= qkv.size(1) &&
                      2 * table->size(1) == head_dim && table->is_contiguous(),
                  "attention takes rotary tables of at least ", qkv.size(1), " rows and ", head_dim,
                  " / 2 columns, not the shape ", table->sizes(), ".");
  }
}

}  // namespace

at::Tensor alibi_slopes(int64_t heads) {
  int64_t power = 1;
  while (2 * power <= heads) power *= 2;
  std::vector<float> slopes;
  for (int64_t i = 1; i <= power; ++i) {
    slopes.push_back(static_cast<float>(std::exp2(-8.0 * i / power)));
  }
  for (int64_t i = 1; power + i / 2 < heads; i += 2) {
    slopes.push_back(static_cast<float>(std::exp2(-4.0 * i / power)));
  }
  return at::from_blob(slopes.data(), {heads}, at::kFloat).clone();
}

at::Tensor dropout_factors(const AttentionShape& shape, const AttentionOptions& options,
                           int64_t batch, int64_t time) {
  const at::Tensor factors = at::empty({batch, shape.heads, time, time}, at::kFloat);
  float* at = factors.data_ptr<float>();
  kernels::AttentionTask<float> task{};
  task.dropout = static_cast<float>(options.dropout);
  for (int64_t row = 0; row < batch; ++row) {
    task.dropout_seed = dropout_seed(options, row);
    for (int64_t i = 0; i < shape.heads * time; ++i, at += time) {
      kernels::attention_kernels<float>().dropout_factors(task, i / time, i % time, 0, time, at);
    }
  }
  return factors;
}

at::Tensor attention(const at::Tensor& qkv, const AttentionShape& shape, const Positions& positions,
                     const AttentionOptions& options) {
  check(qkv, shape, positions);
  check_options(qkv.size(1), shape, options);
  const auto* device = device_ops(qkv);
  if (device != nullptr && options.plain()) return device->attention(qkv, shape, positions);
  if (runs_plain(qkv) || !options.causal) {
    return reference::attention(qkv, shape, positions, options);
  }
  if (!options.bias.defined()) {
    return AttentionFunction::apply(qkv, at::TensorList(), shape, positions, options);
  }
  AttentionOptions whole = options;
  whole.bias = options.bias.contiguous();
  return AttentionFunction::apply(qkv, at::TensorList(whole.bias), shape, positions, whole);
}

}  // namespace omnima::ops

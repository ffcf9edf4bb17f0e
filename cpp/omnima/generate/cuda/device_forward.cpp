#include "omnima/generate/cuda/device_forward.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "omnima/kernels/cuda/activation.h"
#include "omnima/kernels/cuda/decode_gemv.h"
#include "omnima/kernels/cuda/norm.h"
#include "omnima/models/relative.h"
#include "omnima/ops/attention.h"
#include "omnima/ops/cuda/seams.h"

namespace omnima::generate::cuda {
namespace {

using kernels::bfloat16;
using kernels::cuda::DecodeMatrix;
using kernels::cuda::Numbers;
using ops::cuda::on_stream;

// Rows that attention's scratch is for: a prompt's rows come in parts of so many.
constexpr std::int64_t kAttendedRows = 64;
// Numbers of a matrix that are unpacked at once for a wide product.
constexpr std::int64_t kUnpacked = 64 << 20;

float* floats(const at::Tensor& x) {
  return x.defined() ? static_cast<float*>(x.data_ptr()) : nullptr;
}

models::RotaryTables moved(const models::RotaryTables& tables, const at::Device& device) {
  if (!tables.cos.defined()) return {};
  return {tables.cos.to(device), tables.sin.to(device)};
}

at::Tensor first_rows(const at::Tensor& x, std::int64_t rows) {
  return x.defined() ? x.narrow(0, 0, rows) : x;
}

}  // namespace

Workspace::Workspace(const models::DecoderConfig& c, std::int64_t rows_of_it,
                     const at::Device& device)
    : count(rows_of_it) {
  const auto options = at::TensorOptions(at::kFloat).device(device);
  const auto buffer = [&](std::int64_t width) { return at::zeros({count, width}, options); };
  rows = at::zeros({count * static_cast<std::int64_t>(sizeof(kernels::cuda::DecodeRow))},
                   options.dtype(at::kByte));
  x = buffer(c.hidden_size);
  normed = buffer(c.hidden_size);
  projected = buffer(c.hidden_size);
  if (c.parallel_residual) change = buffer(c.hidden_size);
  q = buffer(c.num_attention_heads * c.head_dim);
  attended = buffer(c.num_attention_heads * c.head_dim);
  k = buffer(c.num_key_value_heads * c.head_dim);
  v = buffer(c.num_key_value_heads * c.head_dim);
  inner = buffer((c.gated() ? 2 : 1) * c.intermediate_size);
  activated = buffer(c.intermediate_size);
  mean = at::zeros({count}, options);
  rstd = at::zeros({count * c.num_attention_heads}, options);
}

DeviceForward::DeviceForward(const models::DecoderConfig& config, const DeviceWeights& weights,
                             std::int64_t longest, bool bf16_prompts)
    : config_(config), weights_(weights), longest_(longest), bf16_prompts_(bf16_prompts) {
  const at::Device& device = weights.device;
  rotary_ = moved(models::rotary_tables(config, longest, 0), device);
  local_rotary_ = moved(models::local_rotary_tables(config, longest), device);
  if (config.positions == "relative") {
    buckets_ = models::relative_buckets(config, longest).to(device);
  }
  if (config.positions == "alibi") {
    slopes_ = ops::alibi_slopes(config.num_attention_heads).to(device);
  }
  partial_ = at::empty({kernels::cuda::attention_scratch(kAttendedRows, config.num_attention_heads,
                                                         config.head_dim, longest)},
                       at::TensorOptions(at::kFloat).device(device));
}

const models::RotaryTables& DeviceForward::tables_of(std::int64_t capacity) {
  if (!models::rotary_follows_length(config_, capacity)) return rotary_;
  auto& tables = longer_[capacity];
  if (!tables.cos.defined()) {
    tables = moved(models::rotary_tables(config_, capacity, capacity), weights_.device);
  }
  return tables;
}

void DeviceForward::step(const Workspace& work, std::int64_t rows) {
  forward(work, rows, nullptr);
  head(work, 0, rows, work.logits, /*wide=*/false);
}

void DeviceForward::prompt(const Workspace& work, const Prompt& prompt) {
  forward(work, work.count, &prompt);
}

void DeviceForward::head(const Workspace& work, std::int64_t first, std::int64_t count,
                         const at::Tensor& logits, bool wide) {
  const at::Tensor normed = first_rows(work.normed, count), out = first_rows(logits, count);
  normalise(work, weights_.norm, work.x.narrow(0, first, count), normed);
  products({{&weights_.head, out}}, normed, wide);
  if (config_.logit_softcap == 0) return;
  at::Tensor(out).div_(config_.logit_softcap).tanh_().mul_(config_.logit_softcap);
}

void DeviceForward::forward(const Workspace& work, std::int64_t rows, const Prompt* prompt) {
  on_stream(work.x, [&](auto stream) {
    kernels::cuda::decode_embed(
        {weights_.embedding.matrix, weights_.positions.matrix,
         static_cast<float>(config_.embedding_multiplier), work.row(), rows, floats(work.x)},
        stream);
  });
  for (std::int64_t i = 0; i < config_.num_hidden_layers; ++i) {
    attention(work, i, rows, prompt);
    mlp(work, weights_.layers[i], rows, prompt != nullptr);
    if (config_.parallel_residual) {
      first_rows(work.x, rows).add_(first_rows(work.change, rows));
    }
  }
}

void DeviceForward::attention(const Workspace& work, std::int64_t layer, std::int64_t rows,
                              const Prompt* prompt) {
  const DeviceLayer& weights = weights_.layers[layer];
  const bool wide = prompt != nullptr;
  const auto of = [&](const at::Tensor& buffer) { return first_rows(buffer, rows); };
  const at::Tensor normed = of(work.normed), q = of(work.q), k = of(work.k);
  normalise(work, weights.input_norm, of(work.x), normed);
  products({{&weights.q, q}, {&weights.k, k}, {&weights.v, of(work.v)}}, normed, wide);
  if (config_.qk_norm) {
    normalise_heads(work, weights.query_norm, q);
    normalise_heads(work, weights.key_norm, k);
  }
  place(work, layer, rows);
  if (wide && attends_at_once(layer, rows, *prompt)) {
    attend_at_once(work, layer, *prompt);
  } else {
    attend(work, layer, rows);
  }
  if (config_.parallel_residual) {  // the mlp still reads the stream
    products({{&weights.o, of(work.change)}}, of(work.attended), wide);
  } else if (adds_at_once(weights.attention_output_norm)) {
    products({{&weights.o, of(work.x)}}, of(work.attended), wide, /*adds=*/true);
  } else {
    const at::Tensor projected = of(work.projected);
    products({{&weights.o, projected}}, of(work.attended), wide);
    normalise(work, weights.attention_output_norm, projected, projected);
    of(work.x).add_(projected);
  }
}

void DeviceForward::place(const Workspace& work, std::int64_t layer, std::int64_t rows) {
  const auto& c = config_;
  const bool local = c.is_turned_locally(layer);
  kernels::cuda::PlaceTask<float> task{};
  task.rows = work.row();
  task.count = rows;
  task.q = floats(work.q);
  task.k = floats(work.k);
  task.v = floats(work.v);
  task.turns = c.is_turned(layer);
  task.cos = local ? floats(local_rotary_.cos) : nullptr;
  task.sin = local ? floats(local_rotary_.sin) : nullptr;
  task.layer = static_cast<int>(layer);
  task.heads = static_cast<int>(c.num_attention_heads);
  task.kv_heads = static_cast<int>(c.num_key_value_heads);
  task.head_dim = static_cast<int>(c.head_dim);
  on_stream(work.x, [&](auto stream) { kernels::cuda::decode_place(task, stream); });
}

void DeviceForward::attend(const Workspace& work, std::int64_t layer, std::int64_t rows) {
  const auto& c = config_;
  const std::int64_t width = c.num_attention_heads * c.head_dim;
  kernels::cuda::AttentionTask task{};
  task.partial = floats(partial_);
  task.longest = longest_;
  task.layer = static_cast<int>(layer);
  task.heads = static_cast<int>(c.num_attention_heads);
  task.kv_heads = static_cast<int>(c.num_key_value_heads);
  task.head_dim = static_cast<int>(c.head_dim);
  task.window = c.window_of(layer);
  task.scale = static_cast<float>(c.scale_of_scores());
  task.softcap = static_cast<float>(c.attention_softcap);
  task.slopes = floats(slopes_);
  if (buckets_.defined()) {
    task.buckets = buckets_.const_data_ptr<std::int64_t>();
    task.bias = floats(weights_.relative_bias);
  }
  for (std::int64_t first = 0; first < rows; first += kAttendedRows) {
    task.rows = work.row() + first;
    task.count = std::min(kAttendedRows, rows - first);
    task.q = floats(work.q) + first * width;
    task.out = floats(work.attended) + first * width;
    on_stream(work.x, [&](auto stream) { kernels::cuda::decode_attention<float>(task, stream); });
  }
}

// What ATen's attention knows: all tokens from the first on, causally, and nothing else.
bool DeviceForward::attends_at_once(std::int64_t layer, std::int64_t rows,
                                    const Prompt& prompt) const {
  const std::int64_t window = config_.window_of(layer);
  return prompt.first == 0 && (window == 0 || window >= rows) && config_.attention_softcap == 0 &&
         !slopes_.defined() && !buckets_.defined();
}

void DeviceForward::attend_at_once(const Workspace& work, std::int64_t layer,
                                   const Prompt& prompt) {
  const std::int64_t heads = config_.num_attention_heads, width = config_.head_dim;
  const std::int64_t group = heads / config_.num_key_value_heads;
  const auto cached = [&](std::int64_t which) {  // [1, heads, rows, head_dim]
    const at::Tensor all = prompt.cache.select(0, layer).select(1, which);
    return all.narrow(1, 0, work.count).repeat_interleave(group, 0).unsqueeze(0);
  };
  const at::Tensor q = work.q.view({work.count, heads, width}).transpose(0, 1).unsqueeze(0);
  const at::Tensor out = at::scaled_dot_product_attention(
      q, cached(0), cached(1), {}, 0.0, /*is_causal=*/true, config_.scale_of_scores());
  work.attended.view({work.count, heads, width}).copy_(out[0].transpose(0, 1));
}

void DeviceForward::mlp(const Workspace& work, const DeviceLayer& layer, std::int64_t rows,
                        bool wide) {
  const auto of = [&](const at::Tensor& buffer) { return first_rows(buffer, rows); };
  const at::Tensor normed = of(work.normed), inner = of(work.inner), x = of(work.x);
  const at::Tensor activated = of(work.activated);
  const std::int64_t width = config_.intermediate_size;
  normalise(work, layer.mlp_norm, x, normed);
  if (config_.gated()) {
    products({{&layer.gate, inner.narrow(1, 0, width)}, {&layer.up, inner.narrow(1, width, width)}},
             normed, wide);
  } else {
    products({{&layer.up, inner}}, normed, wide);
  }
  activate(inner, activated);
  if (adds_at_once(layer.mlp_output_norm)) {
    products({{&layer.down, x}}, activated, wide, /*adds=*/true);
    return;
  }
  const at::Tensor projected = of(work.projected);
  products({{&layer.down, projected}}, activated, wide);
  normalise(work, layer.mlp_output_norm, projected, projected);
  at::Tensor(x).add_(projected);
}

void DeviceForward::activate(const at::Tensor& inner, const at::Tensor& activated) {
  const std::string& name = config_.activation;
  const std::int64_t width = activated.size(1);
  const bool by_tanh = name.ends_with("_tanh");
  if (name == "swiglu") {
    on_stream(inner, [&](auto stream) {
      kernels::cuda::swiglu_forward<float>(floats(inner), floats(activated), inner.size(0), width,
                                           stream);
    });
  } else if (name == "relu2") {
    at::Tensor(activated).copy_(inner).relu_().square_();
  } else if (config_.gated()) {
    at::Tensor out = activated;
    at::gelu_out(out, inner.narrow(1, 0, width), by_tanh ? "tanh" : "none");
    out.mul_(inner.narrow(1, width, width));
  } else {
    on_stream(inner, [&](auto stream) {
      kernels::cuda::gelu_forward<float>(floats(inner), floats(activated), inner.numel(), by_tanh,
                                         stream);
    });
  }
}

void DeviceForward::products(std::initializer_list<Output> outputs, const at::Tensor& x, bool wide,
                             bool adds) {
  if (wide) {
    for (const Output& output : outputs) wide_product(output, x, adds);
    return;
  }
  // Matrices of one kind are read by one launch.
  const DecodeMatrix& one = outputs.begin()->linear->weight.matrix;
  const bool alike = std::all_of(outputs.begin(), outputs.end(), [&](const Output& output) {
    const DecodeMatrix& matrix = output.linear->weight.matrix;
    return matrix.kind == one.kind && matrix.whole() == one.whole();
  });
  kernels::cuda::GemvTask task{};
  task.x = floats(x);
  task.rows = x.size(0);
  task.adds = adds;
  on_stream(x, [&](auto stream) {
    for (const Output& output : outputs) {
      task.outputs[task.count++] = {output.linear->weight.matrix, floats(output.linear->bias),
                                    floats(output.y), output.y.stride(0)};
      if (alike && task.count < static_cast<int>(outputs.size())) continue;
      kernels::cuda::decode_gemv(task, stream);
      task.count = 0;
    }
  });
}

// A matrix that lies in the product's type is multiplied where it lies; others are unpacked first.
void DeviceForward::wide_product(const Output& output, const at::Tensor& x, bool adds) {
  const DeviceMatrix& weight = output.linear->weight;
  const DecodeMatrix& matrix = weight.matrix;
  const at::ScalarType type = bf16_prompts_ ? at::kBFloat16 : at::kFloat;
  const bool lies = matrix.kind == (bf16_prompts_ ? Numbers::kBfloat16 : Numbers::kFloat32);
  const at::Tensor in = x.to(type);
  const std::int64_t part =
      lies ? matrix.outputs : std::max<std::int64_t>(1, kUnpacked / matrix.inputs);
  for (std::int64_t first = 0; first < matrix.outputs; first += part) {
    const std::int64_t count = std::min(part, matrix.outputs - first);
    at::Tensor numbers;
    if (lies) {
      numbers = weight.numbers.view(type);
    } else {
      numbers = at::empty({count, matrix.inputs}, in.options());
      on_stream(x, [&](auto stream) {
        if (bf16_prompts_) {
          kernels::cuda::unpack_rows(matrix, first, count,
                                     static_cast<bfloat16*>(numbers.data_ptr()), stream);
        } else {
          kernels::cuda::unpack_rows(matrix, first, count, floats(numbers), stream);
        }
      });
    }
    at::Tensor y = output.y.narrow(1, first, count);
    if (adds) {
      y.add_(at::mm(in, numbers.t()));
    } else {
      y.copy_(at::mm(in, numbers.t()));
    }
  }
  if (output.linear->bias.defined()) at::Tensor(output.y).add_(output.linear->bias);
}

void DeviceForward::normalise(const Workspace& work, const DeviceNorm& norm, const at::Tensor& x,
                              const at::Tensor& y) {
  if (!norm.weight.defined()) {
    if (!y.is_same(x)) y.copy_(x);
    return;
  }
  const bool centred = config_.norm == "layer_norm";
  on_stream(x, [&](auto stream) {
    kernels::cuda::norm_forward<float>(
        {floats(x), nullptr, floats(norm.weight), centred ? floats(norm.bias) : nullptr, nullptr,
         floats(y), centred ? floats(work.mean) : nullptr, floats(work.rstd)},
        {x.size(0), x.size(1), static_cast<float>(config_.norm_eps)}, stream);
  });
}

// The norm of each query or key head, or of all heads as one, where they lie.
void DeviceForward::normalise_heads(const Workspace& work, const at::Tensor& weight,
                                    const at::Tensor& heads) {
  const std::int64_t size = weight.numel();
  on_stream(heads, [&](auto stream) {
    kernels::cuda::norm_forward<float>(
        {floats(heads), nullptr, floats(weight), nullptr, nullptr, floats(heads), nullptr,
         floats(work.rstd)},
        {heads.numel() / size, size, static_cast<float>(config_.norm_eps)}, stream);
  });
}

bool DeviceForward::adds_at_once(const DeviceNorm& norm) const { return !norm.weight.defined(); }

}  // namespace omnima::generate::cuda

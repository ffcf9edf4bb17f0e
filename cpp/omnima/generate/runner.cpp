// The decoder of models/decoder.h, written for appending tokens: no graph, static buffers.
#include "omnima/generate/runner.h"

#include <ATen/Parallel.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/t.h>

#include <algorithm>
#include <cmath>

#include "omnima/core/flush_denormals.h"
#include "omnima/kernels/cpu/activation.h"
#include "omnima/kernels/cpu/gemv.h"
#include "omnima/kernels/cpu/norm.h"

namespace omnima::generate {
namespace {

// From this many rows on, a blocked matrix product is faster than gemv.
constexpr std::int64_t kWideRows = 32;

// A buffer only grows: its contents are written before they are read.
void grow(std::vector<float>& buffer, std::int64_t size) {
  if (static_cast<std::int64_t>(buffer.size()) < size)
    buffer.resize(static_cast<std::size_t>(size));
}

// y [rows, outputs] = x [rows, inputs] weight^T + bias
void wide_product(const Linear& linear, const float* x, std::int64_t rows, float* y,
                  std::int64_t stride) {
  at::Tensor out = at::from_blob(y, {rows, linear.outputs}, {stride, 1}, at::kFloat);
  const at::Tensor in = at::from_blob(const_cast<float*>(x), {rows, linear.inputs}, at::kFloat);
  at::mm_out(out, in, linear.weight.tensor.t());
  const float* bias = linear.bias.data();
  if (!bias) return;
  for (std::int64_t row = 0; row < rows; ++row) {
    for (std::int64_t i = 0; i < linear.outputs; ++i) y[row * stride + i] += bias[i];
  }
}

void softmax(float* scores, std::int64_t count, float scale) {
  float most = scores[0];
  for (std::int64_t i = 1; i < count; ++i) most = std::max(most, scores[i]);
  float total = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    scores[i] = std::exp((scores[i] - most) * scale);
    total += scores[i];
  }
  for (std::int64_t i = 0; i < count; ++i) scores[i] /= total;
}

}  // namespace

Runner::Runner(const models::DecoderConfig& config, const Weights& weights, std::int64_t longest)
    : config_(config),
      weights_(weights),
      team_(at::get_num_threads()),
      score_stride_((longest + 15) / 16 * 16) {
  const std::int64_t shared = config.num_attention_heads / config.num_key_value_heads;
  grow(scores_, team_.size() * shared * score_stride_);
  if (config.positions != "rotary") return;
  const std::int64_t half = config.head_dim / 2;
  for (std::int64_t position = 0; position < longest; ++position) {
    for (std::int64_t i = 0; i < half; ++i) {
      // In float32, as transformers computes them.
      const auto exponent = static_cast<float>(2 * i) / static_cast<float>(config.head_dim);
      const float frequency =
          1.0f / static_cast<float>(std::pow(config.rope_theta, static_cast<double>(exponent)));
      const float angle = static_cast<float>(position) * frequency;
      cos_.push_back(std::cos(angle));
      sin_.push_back(std::sin(angle));
    }
  }
}

void Runner::prefill(DecodeState& state, std::span<const std::int64_t> tokens) {
  rows_.clear();
  const auto count = static_cast<std::int64_t>(tokens.size());
  for (std::int64_t i = 0; i < count; ++i) rows_.push_back({&state, state.position() + i});
  state.advance(count);
  wide_ = count >= kWideRows;
  forward(tokens);
  wide_ = false;
}

void Runner::append(std::span<DecodeState* const> states, std::span<const std::int64_t> tokens) {
  rows_.clear();
  for (DecodeState* state : states) {
    rows_.push_back({state, state->position()});
    state->advance(1);
  }
  forward(tokens);
}

void Runner::logits(std::int64_t first, std::int64_t count, float* out) {
  const core::FlushDenormals flush;
  normalise(weights_.norm, first, count);
  products({{&weights_.head, out, config_.vocab_size}}, normed_.data(), count);
}

void Runner::forward(std::span<const std::int64_t> tokens) {
  const core::FlushDenormals flush;
  const auto rows = static_cast<std::int64_t>(rows_.size());
  const auto& c = config_;
  for (auto* buffer : {&x_, &normed_, &projected_}) grow(*buffer, rows * c.hidden_size);
  for (auto* buffer : {&q_, &attended_}) {
    grow(*buffer, rows * c.num_attention_heads * c.head_dim);
  }
  for (auto* buffer : {&k_, &v_}) grow(*buffer, rows * c.num_key_value_heads * c.head_dim);
  grow(inner_, 2 * rows * c.intermediate_size);
  grow(activated_, rows * c.intermediate_size);
  embed(tokens);
  for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) {
    attention(i, weights_.layers[i]);
    mlp(weights_.layers[i]);
  }
}

void Runner::embed(std::span<const std::int64_t> tokens) {
  const std::int64_t hidden = config_.hidden_size;
  const float* positions = weights_.positions.data();
  for (std::size_t row = 0; row < rows_.size(); ++row) {
    const float* token = weights_.embedding.data() + tokens[row] * hidden;
    float* x = &x_[row * hidden];
    std::copy(token, token + hidden, x);
    if (!positions) continue;
    for (std::int64_t i = 0; i < hidden; ++i) x[i] += positions[rows_[row].position * hidden + i];
  }
}

void Runner::attention(std::int64_t layer, const Layer& weights) {
  const auto rows = static_cast<std::int64_t>(rows_.size());
  normalise(weights.input_norm, 0, rows);
  const Linear &q = weights.q, &k = weights.k, &v = weights.v;
  products({{&q, q_.data(), q.outputs}, {&k, k_.data(), k.outputs}, {&v, v_.data(), v.outputs}},
           normed_.data(), rows);
  remember(layer);
  const std::int64_t heads = config_.num_key_value_heads;
  const std::int64_t scores = scores_.size() / team_.size();
  team_.run(rows * heads, 1, [&](std::int64_t begin, std::int64_t end, int thread) {
    for (std::int64_t i = begin; i < end; ++i) {
      attend(layer, i / heads, i % heads, &scores_[thread * scores]);
    }
  });
  products({{&weights.o, projected_.data(), config_.hidden_size}}, attended_.data(), rows);
  add_to_residual();
}

// Turns queries and keys to their positions; writes keys and values into the states.
void Runner::remember(std::int64_t layer) {
  const std::int64_t width = config_.head_dim, heads = config_.num_key_value_heads;
  const bool rotary = config_.positions == "rotary";
  for (std::size_t row = 0; row < rows_.size(); ++row) {
    auto [state, position] = rows_[row];
    float* keys = &k_[row * heads * width];
    if (rotary) {
      const std::int64_t queries = config_.num_attention_heads;
      rotate(&q_[row * queries * width], queries, position);
      rotate(keys, heads, position);
    }
    for (std::int64_t head = 0; head < heads; ++head) {
      const float* key = keys + head * width;
      const float* value = &v_[(row * heads + head) * width];
      std::copy(key, key + width, state->keys(layer, head) + position * width);
      float* values = state->values(layer, head) + position;
      for (std::int64_t i = 0; i < width; ++i) values[i * state->stride()] = value[i];
    }
  }
}

// Turns the pairs (i, i + head_dim / 2), the convention of Hugging Face's Llama.
void Runner::rotate(float* heads, std::int64_t count, std::int64_t position) const {
  const std::int64_t half = config_.head_dim / 2;
  const float* cos = &cos_[position * half];
  const float* sin = &sin_[position * half];
  for (std::int64_t head = 0; head < count; ++head) {
    float* first = heads + head * config_.head_dim;
    float* second = first + half;
    for (std::int64_t i = 0; i < half; ++i) {
      const float a = first[i], b = second[i];
      first[i] = a * cos[i] - b * sin[i];
      second[i] = b * cos[i] + a * sin[i];
    }
  }
}

// The query heads of one row that share one head of keys and values.
void Runner::attend(std::int64_t layer, std::int64_t row, std::int64_t head, float* scores) {
  const std::int64_t width = config_.head_dim;
  const std::int64_t shared = config_.num_attention_heads / config_.num_key_value_heads;
  const auto [state, position] = rows_[row];
  const std::int64_t length = position + 1;
  const std::int64_t first = (row * config_.num_attention_heads + head * shared) * width;
  kernels::gemv({state->keys(layer, head), width, nullptr, width, &q_[first], width, shared, scores,
                 score_stride_},
                0, length);
  const float scale = 1.0f / std::sqrt(static_cast<float>(width));
  for (std::int64_t i = 0; i < shared; ++i) softmax(scores + i * score_stride_, length, scale);
  kernels::gemv({state->values(layer, head), state->stride(), nullptr, length, scores,
                 score_stride_, shared, &attended_[first], width},
                0, width);
}

void Runner::mlp(const Layer& weights) {
  const auto rows = static_cast<std::int64_t>(rows_.size());
  normalise(weights.mlp_norm, 0, rows);
  const std::int64_t inner = config_.intermediate_size;
  if (config_.activation == "swiglu") {
    products({{&weights.gate, inner_.data(), 2 * inner}, {&weights.up, &inner_[inner], 2 * inner}},
             normed_.data(), rows);
  } else {
    products({{&weights.up, inner_.data(), inner}}, normed_.data(), rows);
  }
  team_.run(rows, 1, [&](std::int64_t begin, std::int64_t end, int) { activate(begin, end); });
  products({{&weights.down, projected_.data(), config_.hidden_size}}, activated_.data(), rows);
  add_to_residual();
}

void Runner::activate(std::int64_t begin, std::int64_t end) {
  const auto& table = kernels::activation_kernels<float>();
  const std::int64_t inner = config_.intermediate_size;
  for (std::int64_t row = begin; row < end; ++row) {
    float* y = &activated_[row * inner];
    if (config_.activation == "swiglu") {
      table.swiglu_forward(&inner_[row * 2 * inner], y, 1, inner);
    } else {
      table.gelu_forward(&inner_[row * inner], y, inner, config_.activation == "gelu_tanh");
    }
  }
}

void Runner::normalise(const Norm& norm, std::int64_t first, std::int64_t rows) {
  const auto& table = kernels::norm_kernels<float>();
  const kernels::NormShape one{1, config_.hidden_size, static_cast<float>(config_.norm_eps)};
  float mean, rstd;
  for (std::int64_t row = 0; row < rows; ++row) {
    const float* x = &x_[(first + row) * config_.hidden_size];
    float* y = &normed_[row * config_.hidden_size];
    if (config_.norm == "layer_norm") {
      table.layer_forward(x, norm.weight.data(), norm.bias.data(), y, &mean, &rstd, one);
    } else {
      table.rms_forward(x, norm.weight.data(), y, &rstd, one);
    }
  }
}

void Runner::add_to_residual() {
  const std::int64_t count = static_cast<std::int64_t>(rows_.size()) * config_.hidden_size;
  for (std::int64_t i = 0; i < count; ++i) x_[i] += projected_[i];
}

void Runner::products(std::initializer_list<Output> outputs, const float* x, std::int64_t rows) {
  if (wide_) {
    for (const auto& [linear, y, stride] : outputs) wide_product(*linear, x, rows, y, stride);
    return;
  }
  std::int64_t total = 0;
  for (const auto& [linear, y, stride] : outputs) total += linear->outputs;
  const std::int64_t grain = (total / (8 * team_.size()) + 15) / 16 * 16;
  team_.run(total, std::max<std::int64_t>(grain, 16),
            [&](std::int64_t begin, std::int64_t end, int) {
              std::int64_t start = 0;  // of this output within the total
              for (const auto& [linear, y, stride] : outputs) {
                const std::int64_t from = std::max<std::int64_t>(begin - start, 0);
                const std::int64_t to = std::min(end - start, linear->outputs);
                if (from < to) {
                  kernels::gemv({linear->weight.data(), linear->inputs, linear->bias.data(),
                                 linear->inputs, x, linear->inputs, rows, y, stride},
                                from, to);
                }
                start += linear->outputs;
              }
            });
}

}  // namespace omnima::generate

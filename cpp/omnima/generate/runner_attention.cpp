// The attention of runner.h: keys and values are remembered, queries read those they see.
#include <algorithm>
#include <cmath>

#include "omnima/core/scope.h"
#include "omnima/generate/runner.h"
#include "omnima/kernels/cpu/activation.h"
#include "omnima/kernels/cpu/cached_heads.h"
#include "omnima/kernels/cpu/norm.h"

namespace omnima::generate {
namespace {

// From this many rows on, threads share their keys and values: each lies in memory of its own.
constexpr std::int64_t kSharedRows = 4;

}  // namespace

void Runner::attention(std::int64_t layer, const Layer& weights) {
  const auto rows = static_cast<std::int64_t>(rows_.size());
  normalise(weights.input_norm, 0, rows);
  const Linear &q = weights.q, &k = weights.k, &v = weights.v;
  products({{&q, q_.data(), q.outputs}, {&k, k_.data(), k.outputs}, {&v, v_.data(), v.outputs}},
           normed_.data(), rows);
  remember(layer, weights);
  {
    const Work work = core::recording() ? attention_work(layer) : Work{};
    const core::Scope scope("attention", work.flops, work.bytes);
    if (has_tiles()) {
      attend_in_pieces(layer);
    } else {
      attend_to_cache(layer, 0, rows);
    }
  }
  if (adds_at_once(weights.attention_output_norm)) {
    return products({{&weights.o, x_.data(), config_.hidden_size, true}}, attended_.data(), rows);
  }
  // Beside a parallel mlp the sum waits until that has read the stream.
  auto& to = config_.parallel_residual ? change_ : projected_;
  products({{&weights.o, to.data(), config_.hidden_size}}, attended_.data(), rows);
  pass_bottlenecks(weights.o, to.data());
  if (!config_.parallel_residual) add_to_residual(weights.attention_output_norm);
}

// Puts the numbers of heads, as the file's rows gave them, into our order.
void Runner::reorder(float* heads, std::int64_t count, int thread) {
  const HeadOrder& order = weights_.head_order;
  if (order.empty()) return;
  for (std::int64_t head = 0; head < count; ++head, heads += order.size()) {
    float* ordered = &ordered_[static_cast<std::size_t>(thread) * order.size()];
    for (std::size_t i = 0; i < order.size(); ++i) ordered[i] = heads[order[i]];
    std::copy_n(ordered, order.size(), heads);
  }
}

// Turns queries and keys to their positions; writes keys and values into the states.
void Runner::remember(std::int64_t layer, const Layer& weights) {
  const core::Scope scope("positions and cache");
  const auto some = [&](std::int64_t begin, std::int64_t end, int thread) {
    for (std::int64_t row = begin; row < end; ++row) remember(layer, weights, row, thread);
  };
  const auto rows = static_cast<std::int64_t>(rows_.size());
  if (rows >= kSharedRows) {
    share(rows, some);
  } else {
    some(0, rows, 0);
  }
}

void Runner::remember(std::int64_t layer, const Layer& weights, std::int64_t row, int thread) {
  const std::int64_t width = config_.head_dim, heads = config_.num_key_value_heads;
  const std::int64_t shared = config_.num_attention_heads;
  auto* const state = rows_[row].state;
  const std::int64_t position = rows_[row].position;
  const auto* tables = tables_of(layer, rows_[row]);
  float *keys = &k_[row * heads * width], *queries = &q_[row * shared * width];
  reorder(queries, shared, thread);
  reorder(keys, heads, thread);
  const bool given = take_virtual(layer, row);
  if (config_.qk_norm && !given) {
    normalise_heads(weights.query_norm, queries, shared, thread);
    normalise_heads(weights.key_norm, keys, heads, thread);
  }
  if (tables != nullptr && !given) {
    rotate(queries, shared, position, *tables);
    rotate(keys, heads, position, *tables);
  }
  for (std::int64_t head = 0; head < heads; ++head) {
    state->write(layer, head, position, keys + head * width, &v_[(row * heads + head) * width]);
  }
}

bool Runner::take_virtual(std::int64_t layer, std::int64_t row) {
  const std::int64_t which = rows_[row].virtual_token;
  if (which < 0) return false;
  const auto& all = rows_[row].state->change()->virtual_tokens().keys_values;
  if (all.empty()) return false;
  const std::int64_t width = config_.num_key_value_heads * config_.head_dim;
  const float* own =
      all[static_cast<std::size_t>(layer)].const_data_ptr<float>() + which * 2 * width;
  std::copy_n(own, width, &k_[row * width]);
  std::copy_n(own + width, width, &v_[row * width]);
  return true;
}

const models::RotaryTables* Runner::tables_of(std::int64_t layer, const Row& row) const {
  if (!config_.is_turned(layer)) return nullptr;
  return config_.is_turned_locally(layer) ? &local_rotary_ : row.rotary;
}

// Turns the pairs (i, i + head_dim / 2), the convention of Hugging Face's Llama.
void Runner::rotate(float* heads, std::int64_t count, std::int64_t position,
                    const models::RotaryTables& tables) const {
  const std::int64_t half = config_.head_dim / 2;
  const float* cos = tables.cos.const_data_ptr<float>() + position * half;
  const float* sin = tables.sin.const_data_ptr<float>() + position * half;
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

Runner::Work Runner::attention_work(std::int64_t layer) const {
  const core::BlockPattern blocks = config_.blocks_of(layer);
  const std::int64_t window = config_.window_of(layer);
  const std::int64_t number = kernels::CachedHead::number_bytes(rows_.front().state->format());
  const bool scaled = rows_.front().state->format() == kernels::CacheFormat::kInt8;
  Work work;
  const auto add = [&](std::int64_t queries, std::int64_t reads, std::int64_t seen) {
    const auto products = static_cast<double>(2 * seen * config_.head_dim);  // scores and sums
    work.flops += 2.0 * static_cast<double>(queries) * products;
    work.bytes += static_cast<double>(number * reads) * products;
    if (scaled) work.bytes += 2 * sizeof(float) * static_cast<double>(reads * seen);
  };
  for (const Row& row : rows_) {
    const std::int64_t all = row.position + 1;
    if (blocks.size == 0) {
      add(config_.num_attention_heads, config_.num_key_value_heads,
          window > 0 ? std::min(all, window) : all);
      continue;
    }
    for (std::int64_t head = 0; head < config_.num_attention_heads; ++head) {
      blocks.for_stretches(head, row.position,
                           [&](std::int64_t begin, std::int64_t end) { add(1, 1, end - begin); });
    }
  }
  return work;
}

float Runner::score_scale() const {
  return config_.attention_softcap > 0 ? 1.0f : static_cast<float>(config_.scale_of_scores());
}

void Runner::shape(std::int64_t head, std::int64_t begin, std::int64_t count, std::int64_t position,
                   float* scores) const {
  const float scale = score_scale();
  if (config_.attention_softcap > 0) {
    const auto inner = static_cast<float>(config_.scale_of_scores());
    for (std::int64_t j = 0; j < count; ++j) scores[j] *= inner;
    kernels::activation_kernels<float>().soft_cap(scores, scores, count,
                                                  static_cast<float>(config_.attention_softcap));
  }
  if (!slopes_.empty()) {
    for (std::int64_t j = 0; j < count; ++j) {
      scores[j] += slopes_[head] / scale * static_cast<float>(begin + j - position);
    }
  }
  if (buckets_.defined()) {
    const auto* bucket = buckets_.const_data_ptr<std::int64_t>();
    const float* bias = weights_.relative_bias.data() + head;
    for (std::int64_t j = 0; j < count; ++j) {
      scores[j] += bias[bucket[position - begin - j] * config_.num_attention_heads] / scale;
    }
  }
}

void Runner::normalise_heads(const Weight& norm, float* heads, std::int64_t count, int thread) {
  const core::Scope scope("norms");
  const std::int64_t size = norm.tensor.numel();  // a head's, or all heads' as one
  const std::int64_t norms = count * config_.head_dim / size;
  kernels::norm_kernels<float>().rms_forward(heads, norm.data(), heads,
                                             &rstd_[thread * config_.num_attention_heads],
                                             {norms, size, static_cast<float>(config_.norm_eps)});
}

}  // namespace omnima::generate

// The decoder of models/decoder.h, written for appending tokens: no graph, static buffers.
#include "omnima/generate/runner.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <utility>

#include "omnima/core/flush_denormals.h"
#include "omnima/core/scope.h"
#include "omnima/kernels/cpu/activation.h"
#include "omnima/kernels/cpu/block_gemv.h"
#include "omnima/kernels/cpu/norm.h"
#include "omnima/models/relative.h"
#include "omnima/ops/attention.h"

namespace omnima::generate {
namespace {

void read_row(const quant::Matrix& matrix, std::int64_t row, float* out) {
  kernels::dequantize_blocks(matrix.format->blocks(), matrix.row(row),
                             matrix.inputs / matrix.format->numbers, out);
}

}  // namespace

Runner::Runner(const models::DecoderConfig& config, const Weights& weights,
               const RunnerOptions& options, CompactCopies* copies)
    : config_(config),
      weights_(weights),
      copies_(copies),
      compact_(copies ? copies->current() : nullptr),
      team_(at::get_num_threads()),
      bf16_prompts_(options.bf16_prompts),
      together_(options.together),
      layout_(config, options.cache),
      pool_(layout_.page_bytes(), options.max_pages),
      longest_(options.longest) {
  const std::int64_t longest = options.longest;
  const std::int64_t shared = config.num_attention_heads / config.num_key_value_heads;
  grow(scores_, team_.size() * shared * kStretch);
  grow(rstd_, team_.size() * config.num_attention_heads);
  grow(ordered_, team_.size() * config.head_dim);
  rotary_ = models::rotary_tables(config, longest, 0);
  local_rotary_ = models::local_rotary_tables(config, longest);
  if (config.positions == "relative") buckets_ = models::relative_buckets(config, longest);
  if (config.positions == "alibi") {
    const at::Tensor slopes = ops::alibi_slopes(config.num_attention_heads);
    slopes_.assign(slopes.const_data_ptr<float>(), slopes.const_data_ptr<float>() + slopes.numel());
  }
}

std::unique_ptr<SequenceState> Runner::begin(std::int64_t capacity, const Change* change) {
  look_at_weights();
  auto state = std::make_unique<DecodeState>(layout_, capacity, pool_);
  state->use(change);
  return state;
}

std::unique_ptr<SequenceState> Runner::begin_as(const SequenceState& known, std::int64_t tokens,
                                                std::int64_t capacity, const Change* change) {
  // Tables that follow a sequence's room turn its keys otherwise.
  const auto follows = [&](std::int64_t room) {
    return models::rotary_follows_length(config_, room);
  };
  if (follows(capacity) || follows(known.capacity())) return begin(capacity, change);
  look_at_weights();
  const auto& of = static_cast<const DecodeState&>(known);  // a Runner made it
  auto state = std::make_unique<DecodeState>(layout_, capacity, pool_);
  state->begin_as(of, tokens);
  state->use(change);
  return state;
}

void Runner::look_at_weights() {
  if (copies_) compact_ = copies_->still_current();
}

Runner::Row Runner::row_of(SequenceState& sequence, std::int64_t position) {
  auto& state = static_cast<DecodeState&>(sequence);  // begin() made it
  const std::int64_t room = state.capacity();
  if (!models::rotary_follows_length(config_, room)) return {&state, position, &rotary_};
  if (state.rotary() == nullptr) state.turn_by(tables_for(room));
  return {&state, position, state.rotary().get()};
}

std::shared_ptr<const models::RotaryTables> Runner::tables_for(std::int64_t room) {
  std::erase_if(longer_, [](const auto& each) { return each.second.expired(); });
  auto tables = longer_[room].lock();
  if (tables == nullptr) {
    tables =
        std::make_shared<const models::RotaryTables>(models::rotary_tables(config_, room, room));
    longer_[room] = tables;
  }
  return tables;
}

void Runner::prefill(SequenceState& state, std::span<const std::int64_t> tokens) {
  const Piece piece{&state, tokens};
  read({&piece, 1});
}

void Runner::read(std::span<const Piece> pieces) {
  rows_.clear();
  pieces_.clear();
  ids_.clear();
  for (const auto& [state, tokens] : pieces) {
    const auto count = std::ssize(tokens);
    const bool goes_on = !rows_.empty() && rows_.back().state == state && joins_pieces();
    if (goes_on && count >= kWideRows && pieces_.back().count >= kWideRows) {
      pieces_.back().count += count;
    } else {
      pieces_.push_back({std::ssize(rows_), count});
    }
    ids_.insert(ids_.end(), tokens.begin(), tokens.end());
    for (std::int64_t i = 0; i < count; ++i) {
      rows_.push_back(row_of(*state, state->position() + i));
      const std::int64_t beyond = tokens[i] - config_.vocab_size;
      if (beyond >= 0) rows_.back().virtual_token = beyond;
    }
    state->advance(count);
  }
  wide_ = std::ssize(rows_) >= kWideRows || reads_together();
  forward(ids_);
  wide_ = false;
}

bool Runner::joins_pieces() const {
  for (std::int64_t i = 0; i < config_.num_hidden_layers; ++i) {
    if (config_.blocks_of(i).size > 0) return false;
  }
  const kernels::CacheFormat format = layout_.format();
  return format == kernels::CacheFormat::kFloat32 ||
         (format == kernels::CacheFormat::kBf16 && bf16_prompts_);
}

void Runner::append(std::span<SequenceState* const> states, std::span<const std::int64_t> tokens) {
  if (copies_) {
    const std::int64_t read = std::exchange(halves_read_, 0);
    if (!compact_) compact_ = copies_->after_step(read, team_);
  }
  rows_.clear();
  for (SequenceState* state : states) {
    rows_.push_back(row_of(*state, state->position()));
    state->advance(1);
  }
  forward(tokens);
}

void Runner::logits(std::int64_t first, std::int64_t count, float* out) {
  const core::Scope scope("head");
  const core::FlushDenormals flush;
  normalise(weights_.norm, first, count);
  const Item item{{&weights_.head, out, config_.vocab_size}, normed_.data(), count};
  multiply({&item, 1}, "head");
  if (config_.logit_softcap == 0) return;
  kernels::activation_kernels<float>().soft_cap(out, out, count * config_.vocab_size,
                                                static_cast<float>(config_.logit_softcap));
}

void Runner::hidden(std::int64_t first, std::int64_t count, float* out) {
  const core::FlushDenormals flush;
  normalise(weights_.norm, first, count);
  std::copy_n(normed_.begin(), count * config_.hidden_size, out);
}

void Runner::logits(std::span<const std::int64_t> rows, float* out) {
  const std::int64_t width = config_.hidden_size;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::copy_n(&x_[rows[i] * width], width, &x_[static_cast<std::int64_t>(i) * width]);
  }
  logits(0, std::ssize(rows), out);
}

void Runner::forward(std::span<const std::int64_t> tokens) {
  const core::FlushDenormals flush;
  const auto rows = static_cast<std::int64_t>(rows_.size());
  const auto& c = config_;
  group(rows, [&](std::int64_t row) { return rows_[row].state->change(); });
  for (auto* buffer : {&x_, &normed_, &projected_}) grow(*buffer, rows * c.hidden_size);
  if (c.parallel_residual) grow(change_, rows * c.hidden_size);
  for (auto* buffer : {&q_, &attended_}) {
    grow(*buffer, rows * c.num_attention_heads * c.head_dim);
  }
  for (auto* buffer : {&k_, &v_}) grow(*buffer, rows * c.num_key_value_heads * c.head_dim);
  embed(tokens);
  for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) {
    attention(i, weights_.layers[i]);
    mlp(weights_.layers[i]);
    if (c.parallel_residual) {
      const core::Scope scope("residual");
      for (std::int64_t j = 0; j < rows * c.hidden_size; ++j) x_[j] += change_[j];
    }
  }
}

void Runner::embed(std::span<const std::int64_t> tokens) {
  const std::int64_t hidden = config_.hidden_size;
  const auto rows = static_cast<std::int64_t>(rows_.size());
  const core::Scope scope("embedding", 0,
                          static_cast<double>(rows * weights_.embedding.row_bytes()));
  for (std::size_t row = 0; row < rows_.size(); ++row) {
    float* x = &x_[row * hidden];
    const std::int64_t which = rows_[row].virtual_token;
    const Change* change = rows_[row].state->change();
    if (which < 0) {
      read_row(weights_.embedding, tokens[row], x);
    } else if (const at::Tensor& own = change->virtual_tokens().embeddings; own.defined()) {
      std::copy_n(own.const_data_ptr<float>() + which * hidden, hidden, x);
    } else {
      std::fill_n(x, hidden, 1.0f);  // nothing reads what becomes of it
    }
    const auto factor = static_cast<float>(config_.embedding_multiplier);
    for (std::int64_t i = 0; i < hidden; ++i) x[i] *= factor;
    if (weights_.positions.outputs == 0) continue;
    read_row(weights_.positions, rows_[row].position, normed_.data());
    for (std::int64_t i = 0; i < hidden; ++i) x[i] += normed_[i];
  }
}

void Runner::normalise(const Norm& norm, std::int64_t first, std::int64_t rows) {
  const float* x = &x_[first * config_.hidden_size];
  if (norm.weight.data() == nullptr) {
    std::copy_n(x, rows * config_.hidden_size, normed_.begin());
  } else {
    normalise(norm, x, rows, normed_.data());
  }
}

void Runner::normalise(const Norm& norm, const float* x, std::int64_t rows, float* y) {
  const core::Scope scope("norms");
  const auto& table = kernels::norm_kernels<float>();
  const kernels::NormShape one{1, config_.hidden_size, static_cast<float>(config_.norm_eps)};
  // What is written to normed_ meets products next.
  const bool rounds = in_halves() && y == normed_.data();
  if (rounds) begin_halves(y, rows, one.cols);
  const auto some = [&](std::int64_t begin, std::int64_t end, int) {
    float mean, rstd;
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t at = row * one.cols;
      if (config_.norm == "layer_norm") {
        table.layer_forward(x + at, norm.weight.data(), norm.bias.data(), y + at, &mean, &rstd,
                            one);
      } else {
        table.rms_forward(x + at, norm.weight.data(), y + at, &rstd, one);
      }
      if (rounds) halves_.put(row, y + at);
    }
  };
  if (wide_) {
    share(rows, some);
  } else {
    some(0, rows, 0);
  }
}

void Runner::add_to_residual(const Norm& norm) {
  const core::Scope scope("residual");
  const auto rows = static_cast<std::int64_t>(rows_.size());
  if (norm.weight.data() != nullptr) normalise(norm, projected_.data(), rows, projected_.data());
  const std::int64_t width = config_.hidden_size;
  const auto some = [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin * width; i < end * width; ++i) x_[i] += projected_[i];
  };
  if (wide_) {
    share(rows, some);
  } else {
    some(0, rows, 0);
  }
}

}  // namespace omnima::generate

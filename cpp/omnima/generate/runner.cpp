// The decoder of models/decoder.h, written for appending tokens: no graph, static buffers.
#include "omnima/generate/runner.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <utility>

#include "omnima/core/flush_denormals.h"
#include "omnima/core/scope.h"
#include "omnima/kernels/cpu/activation.h"
#include "omnima/kernels/cpu/block_gemv.h"
#include "omnima/kernels/cpu/half_gemv.h"
#include "omnima/kernels/cpu/norm.h"
#include "omnima/models/relative.h"
#include "omnima/ops/attention.h"
#include "omnima/ops/router.h"

namespace omnima::generate {
namespace {

constexpr std::int64_t kRowsOfAThread =
    16;  // of those that are rounded: so many share lines of memory

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
  if (copies_ && !compact_) {
    compact_ = copies_->after_step(std::exchange(halves_read_, 0), team_);
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

void Runner::mlp(const Layer& weights) {
  const auto rows = static_cast<std::int64_t>(rows_.size());
  normalise(weights.mlp_norm, 0, rows);
  if (weights.experts.empty() && adds_at_once(weights.mlp_output_norm)) {
    return pass_mlp(weights.mlp, normed_.data(), rows, x_.data(), true);
  }
  if (weights.mlp.up.outputs > 0) {
    pass_mlp(weights.mlp, normed_.data(), rows, projected_.data());
  } else {
    std::fill_n(projected_.begin(), rows * config_.hidden_size, 0.0f);
  }
  if (!weights.experts.empty()) pass_experts(weights);
  add_to_residual(weights.mlp_output_norm);
}

void Runner::pass_mlp(const Mlp& mlp, const float* x, std::int64_t rows, float* y, bool add) {
  const std::int64_t inner = mlp.up.outputs;
  const auto most = static_cast<std::int64_t>(rows_.size());  // any expert may be sent all rows
  if (in_halves() && config_.gated() && groups_.empty()) {
    grow(activated_, inner);
    pass_gated(mlp, x, rows);
    return products({{&mlp.down, y, config_.hidden_size, add}}, activated_.data(), rows);
  }
  grow(inner_, 2 * most * inner);
  grow(activated_, most * inner);
  if (config_.gated()) {
    products({{&mlp.gate, inner_.data(), 2 * inner}, {&mlp.up, &inner_[inner], 2 * inner}}, x,
             rows);
  } else {
    products({{&mlp.up, inner_.data(), inner}}, x, rows);
  }
  const std::int64_t stride = (config_.gated() ? 2 : 1) * inner;
  {
    const core::Scope scope("activation");
    share(rows, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t row = begin; row < end; ++row) {
        activate(&inner_[row * stride], inner, &activated_[row * inner]);
      }
    });
  }
  products({{&mlp.down, y, config_.hidden_size, add}}, activated_.data(), rows);
  pass_bottlenecks(mlp.down, y);
}

// Leaves the mlp's middle in middle_, for the product that takes activated_.
void Runner::pass_gated(const Mlp& mlp, const float* x, std::int64_t rows) {
  const std::int64_t inner = mlp.up.outputs, hidden = mlp.up.inputs;
  const core::Scope scope("products", 4.0 * static_cast<double>(rows * inner * hidden),
                          static_cast<double>(mlp.gate.weight.bytes() + mlp.up.weight.bytes()));
  take_halves(x, rows, hidden);
  middle_.begin(rows, inner);
  halves_.run_gated(
      mlp.gate, mlp.up,
      [&](float* sums, std::int64_t count, kernels::bfloat16* made) {
        if (config_.activation == "swiglu") {
          return kernels::activation_kernels<float>().swiglu_rounded(sums, made, count);
        }
        activate(sums, count, sums);
        kernels::gemm_kernels<kernels::bfloat16>().convert(sums, count, made);
      },
      middle_);
  halves_of_ = activated_.data();
}

// Room for rounded rows of x, which are put there before the next products of x.
void Runner::begin_halves(const float* x, std::int64_t rows, std::int64_t width) {
  halves_.begin(rows, width);
  halves_of_ = x;
}

// Rounds rows for the next products, unless they are there already.
HalfProducts& Runner::take_halves(const float* x, std::int64_t rows, std::int64_t inputs) {
  if (std::exchange(halves_of_, nullptr) == x) return x == activated_.data() ? middle_ : halves_;
  halves_.begin(rows, inputs);
  share(rows, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin; row < end; ++row) halves_.put(row, x + row * inputs);
  });
  return halves_;
}

const std::vector<std::vector<Runner::Sent>>& Runner::routes(const Linear& router) {
  const auto rows = static_cast<std::int64_t>(rows_.size());
  const std::int64_t experts = router.outputs;
  const ops::RouterOptions options{config_.num_experts_per_tok, config_.norm_topk_prob};
  grow(routed_, rows * experts);
  products({{&router, routed_.data(), experts}}, normed_.data(), rows);
  sent_.resize(static_cast<std::size_t>(experts));
  for (auto& to_one : sent_) {
    to_one.clear();
    to_one.reserve(static_cast<std::size_t>(rows));
  }
  chosen_.resize(static_cast<std::size_t>(options.chosen));
  chosen_weights_.resize(chosen_.size());
  for (std::int64_t row = 0; row < rows; ++row) {
    ops::choose_experts(&routed_[row * experts], experts, options, chosen_.data(),
                        chosen_weights_.data());
    for (std::size_t i = 0; i < chosen_.size(); ++i) {
      sent_[chosen_[i]].push_back({row, chosen_weights_[i]});
    }
  }
  return sent_;
}

void Runner::pass_experts(const Layer& weights) {
  const core::Scope scope("experts");
  const std::int64_t hidden = config_.hidden_size;
  const auto& sent = routes(weights.router);
  grow(gathered_, static_cast<std::int64_t>(rows_.size()) * hidden);
  grow(made_, static_cast<std::int64_t>(rows_.size()) * hidden);
  all_groups_.swap(groups_);
  for (std::size_t expert = 0; expert < sent.size(); ++expert) {
    const auto here = static_cast<std::int64_t>(sent[expert].size());
    if (here == 0) continue;
    for (std::int64_t i = 0; i < here; ++i) {
      std::copy_n(&normed_[sent[expert][i].row * hidden], hidden, &gathered_[i * hidden]);
    }
    group(here, [&](std::int64_t i) { return rows_[sent[expert][i].row].state->change(); });
    pass_mlp(weights.experts[expert], gathered_.data(), here, made_.data());
    for (std::int64_t i = 0; i < here; ++i) {
      const auto [row, weight] = sent[expert][i];
      for (std::int64_t j = 0; j < hidden; ++j) {
        projected_[row * hidden + j] += weight * made_[i * hidden + j];
      }
    }
  }
  groups_.swap(all_groups_);
}

void Runner::activate(const float* x, std::int64_t inner, float* y) {
  const auto& table = kernels::activation_kernels<float>();
  const std::string& name = config_.activation;
  if (name == "swiglu") {
    table.swiglu_forward(x, y, 1, inner);
  } else if (name == "relu2") {
    table.relu2_forward(x, y, inner);
  } else if (config_.gated()) {
    table.geglu_forward(x, y, 1, inner, name == "geglu_tanh");
  } else {
    table.gelu_forward(x, y, inner, name == "gelu_tanh");
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

void Runner::products(std::initializer_list<Output> outputs, const float* x, std::int64_t rows) {
  if (!groups_.empty()) return adapted_products(outputs, x, rows);
  items_.clear();
  for (const Output& output : outputs) items_.push_back({output, x, rows});
  multiply(items_, "products");
}

void Runner::multiply(std::span<const Item> items, const char* part) {
  double flops = 0, bytes = 0;
  for (const auto& [output, x, rows] : items) {
    const Linear& linear = *output.linear;
    flops += 2.0 * static_cast<double>(rows * linear.outputs * linear.inputs);
    const kernels::Compact* const copy = compact(linear, rows);
    const std::int64_t read = copy ? copy->bytes() : linear.weight.bytes();
    bytes += static_cast<double>(read + linear.bias.bytes());
    if (linear.half >= 0 && rows <= kernels::kCompactRows) halves_read_ += read;
  }
  const core::Scope scope(part, flops, bytes);
  if (wide_) return multiply_wide(items);
  const auto& [first, x, rows] = items.front();
  std::int64_t total = 0;
  kernels::ByteRows bytes_of_x{};
  const void* halves_of_x = nullptr;
  for (const Item& item : items) {
    const Linear& linear = *item.output.linear;
    total += linear.outputs;
    if (linear.packed && !bytes_of_x.levels) bytes_of_x = in_bytes(x, rows, linear.inputs);
    if (linear.in_halves && !halves_of_x) halves_of_x = in_half_rows(x, rows, linear.inputs);
  }
  const std::int64_t grain = (total / (8 * team_.size()) + 15) / 16 * 16;
  team_.run(
      total, std::max<std::int64_t>(grain, 16), [&](std::int64_t begin, std::int64_t end, int) {
        std::int64_t start = 0;  // of this output within the total
        for (const auto& [output, in, count] : items) {
          const Linear& linear = *output.linear;
          const std::int64_t from = std::max<std::int64_t>(begin - start, 0);
          const std::int64_t to = std::min(end - start, linear.outputs);
          if (from < to && linear.packed) {
            kernels::packed_gemv({linear.packed->layout, linear.bias.data(), bytes_of_x, count,
                                  output.y, output.stride},
                                 from, to);
          } else if (from < to && linear.in_halves) {
            const auto* weight = reinterpret_cast<const kernels::bfloat16*>(linear.weight.row(0));
            kernels::half_gemv({weight, linear.bias.data(), linear.inputs, halves_of_x, count,
                                output.y, output.stride},
                               from, to);
          } else if (const auto* copy = compact(linear, count); copy && from < to) {
            kernels::compact_gemv({*copy, linear.bias.data(), linear.inputs, in, linear.inputs,
                                   count, output.y, output.stride},
                                  from, to);
          } else if (from < to) {
            kernels::block_gemv(
                {linear.weight.format->blocks(), linear.weight.row(0), linear.bias.data(),
                 linear.inputs, in, linear.inputs, count, output.y, output.stride},
                from, to);
          }
          start += linear.outputs;
        }
      });
}

const kernels::Compact* Runner::compact(const Linear& linear, std::int64_t rows) const {
  if (!compact_ || linear.half < 0 || rows > kernels::kCompactRows) return nullptr;
  const auto& copy = (*compact_)[static_cast<std::size_t>(linear.half)];
  return copy ? &copy->layout : nullptr;
}

const void* Runner::in_half_rows(const float* x, std::int64_t rows, std::int64_t inputs) {
  grow(half_rows_, kernels::half_rows_bytes(rows, inputs));
  team_.run(rows, kRowsOfAThread, [&](std::int64_t begin, std::int64_t end, int) {
    kernels::pack_half_rows(x, begin, end, inputs, half_rows_.data());
  });
  return half_rows_.data();
}

kernels::ByteRows Runner::in_bytes(const float* x, std::int64_t rows, std::int64_t inputs) {
  const std::int64_t pieces = (inputs + kernels::kPieceInputs - 1) / kernels::kPieceInputs;
  grow(byte_levels_, rows * pieces * kernels::kPieceInputs);
  grow(byte_scales_, rows * pieces);
  grow(byte_totals_, 2 * rows * pieces);
  const kernels::ByteRows out{byte_levels_.data(), byte_scales_.data(), byte_totals_.data()};
  team_.run(rows, kRowsOfAThread, [&](std::int64_t begin, std::int64_t end, int) {
    kernels::quantize_rows(x + begin * inputs, inputs, end - begin, inputs,
                           {out.levels + begin * pieces * kernels::kPieceInputs,
                            out.scales + begin * pieces, out.totals + 2 * begin * pieces});
  });
  return out;
}

}  // namespace omnima::generate

#include "omnima/models/decoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <cmath>

#include "omnima/core/error.h"
#include "omnima/core/labels.h"
#include "omnima/models/relative.h"
#include "omnima/nn/checkpoint.h"
#include "omnima/ops/device_ops.h"
#include "omnima/ops/dropout.h"
#include "omnima/ops/embedding.h"
#include "omnima/ops/linear.h"

namespace omnima::models {

using core::DataError;
using core::require;

namespace {

constexpr double kAlways = 2.0;
constexpr double kMost = 0.95;  // a larger share of labelled places is not worth a copy

nn::DropRates drop_rates(const DecoderConfig& c) {
  return {c.embedding_dropout < 0 ? c.dropout : c.embedding_dropout, c.attention_dropout, c.dropout,
          c.layer_drop};
}

nn::Attention::Turn turn_of(const DecoderConfig& c, std::int64_t layer) {
  if (!c.is_turned(layer)) return nn::Attention::Turn::kNone;
  return c.is_turned_locally(layer) ? nn::Attention::Turn::kLocal : nn::Attention::Turn::kWhole;
}

// Places of a stream and their labels: [places, width] and [places].
struct Places {
  at::Tensor x, labels;
};

// Where most places have a label (or the labels lie on a device, which need not be asked) all of
// them, else those that have one: the last norm and the head need no others. At least one.
Places labelled(const at::Tensor& stream, const at::Tensor& labels, double most = kMost) {
  const at::Tensor flat = labels.reshape({-1}).contiguous();
  const at::Tensor x = stream.reshape({flat.size(0), -1});
  if (!flat.is_cpu()) return {x, flat};
  const std::int64_t* label = flat.const_data_ptr<std::int64_t>();
  std::vector<std::int64_t> found;
  for (std::int64_t i = 0; i < flat.numel(); ++i) {
    if (label[i] != core::kIgnoredLabel) found.push_back(i);
  }
  if (static_cast<double>(found.size()) > most * static_cast<double>(flat.numel())) {
    return {x, flat};
  }
  if (found.empty()) found.push_back(0);
  const at::Tensor places = at::tensor(found, flat.options());
  return {x.index_select(0, places), flat.index_select(0, places)};
}

// How many places of each row have a label.
std::vector<std::int64_t> labels_a_row(const at::Tensor& labels) {
  const at::Tensor counts = labels.ne(core::kIgnoredLabel).sum(1).cpu();
  const std::int64_t* count = counts.const_data_ptr<std::int64_t>();
  return {count, count + counts.numel()};
}

}  // namespace

Decoder::Decoder(const DecoderConfig& config, std::optional<std::uint64_t> seed,
                 const std::string& device, const std::map<std::string, std::string>& held)
    : config_(config) {
  config_.check();
  const auto& c = config_;
  const double std = c.initializer_range;
  const double output_std = c.depth_scaled_init ? std / std::sqrt(2.0 * c.num_hidden_layers) : std;
  const bool layer_norm = c.norm == "layer_norm";
  tokens_ = arena_.add({"model.embed_tokens.weight", {c.vocab_size, c.hidden_size}, std});
  if (c.positions == "learned") {
    learned_positions_ = arena_.add(
        {"model.embed_positions.weight", {c.max_position_embeddings, c.hidden_size}, std});
  }
  if (c.positions == "relative") {
    relative_bias_ = arena_.add(
        {"model.relative_bias.weight", {c.relative_buckets, c.num_attention_heads}, std});
    buckets_ = relative_buckets(c, c.max_position_embeddings).to(at::Device(device));
  }
  at::Tensor slopes;
  if (c.positions == "alibi") {
    slopes = ops::alibi_slopes(c.num_attention_heads).to(at::Device(device));
  }
  for (int64_t i = 0; i < c.num_hidden_layers; ++i) {
    const std::string name = "model.layers." + std::to_string(i);
    ops::AttentionOptions scores{c.window_of(i), c.attention_softcap, slopes};
    scores.causal = c.causal;
    scores.blocks = c.blocks_of(i);
    scores.scale = c.attention_scale;
    Block block;
    const auto norm = [&](const char* of) {
      return nn::Norm(arena_, name + of, c.hidden_size, layer_norm, c.norm_eps);
    };
    if (c.norms_before()) block.input_norm = norm(".input_layernorm");
    block.attention = nn::Attention(arena_, name + ".self_attn",
                                    {c.hidden_size,
                                     {c.num_attention_heads, c.num_key_value_heads, c.head_dim},
                                     c.attention_bias,
                                     c.attention_bias && c.attention_output_bias,
                                     std,
                                     output_std,
                                     scores,
                                     c.qk_norm,
                                     c.qk_norm_over_heads,
                                     c.norm_eps,
                                     turn_of(c, i)});
    if (c.norms_after()) block.attention_output_norm = norm(".attention_output_layernorm");
    if (c.norms_before()) block.mlp_norm = norm(".post_attention_layernorm");
    nn::Mlp::Options mlp{c.hidden_size, c.intermediate_size, c.activation, c.mlp_bias,
                         std,           output_std};
    if (c.has_experts(i)) {
      mlp.intermediate_size = c.moe_intermediate_size;
      block.moe.emplace(
          arena_, name + ".mlp",
          nn::Moe::Options{mlp, c.num_experts, c.num_experts_per_tok, c.norm_topk_prob,
                           c.shared_expert_intermediate_size, c.expert_capacity});
    } else {
      block.mlp = nn::Mlp(arena_, name + ".mlp", mlp);
    }
    if (c.norms_after()) block.mlp_output_norm = norm(".mlp_output_layernorm");
    blocks_.push_back(std::move(block));
  }
  final_norm_ = nn::Norm(arena_, "model.norm", c.hidden_size, layer_norm, c.norm_eps);
  head_ = c.tie_word_embeddings || c.reward_head
              ? tokens_
              : arena_.add({"lm_head.weight", {c.vocab_size, c.hidden_size}, std});
  if (c.reward_head) {
    reward_ = arena_.add({"score.weight", {1, c.hidden_size}, std});
  } else {
    arena_.add_factor(head_);
  }
  prediction_heads_ = PredictionHeads(arena_, c, std, output_std);
  hold_in(held);
  arena_.build(seed, at::Device(device));
  if (c.positions == "rotary") {
    // Those of a sequence in the original context; longer ones may have tables of their own.
    rotary_ = rotary_tables(c, c.max_position_embeddings, 0);
    rotary_ = {rotary_.cos.to(at::Device(device)), rotary_.sin.to(at::Device(device))};
    local_rotary_ = local_rotary_tables(c, c.max_position_embeddings);
    if (local_rotary_.cos.defined()) {
      local_rotary_ = {local_rotary_.cos.to(at::Device(device)),
                       local_rotary_.sin.to(at::Device(device))};
    }
  }
}

void Decoder::hold_in(const std::map<std::string, std::string>& formats) {
  auto slots = arena_.factors();
  slots.push_back(tokens_);
  for (const auto& [name, format] : formats) {
    bool found = false;
    for (const nn::Slot slot : slots) {
      for (std::int64_t i = slot.first; i < slot.first + slot.count && !found; ++i) {
        found = arena_.parameters()[i].name == name && name.find(".experts.") == std::string::npos;
        if (found) arena_.hold_in(i, quant::format_named(format));
      }
    }
    require<core::ConfigError>(found, "\"", name, "\" cannot be held in blocks: linear layers, ",
                               "embedding and head can, experts cannot.");
  }
}

void Decoder::hold(const std::string& name, const at::Tensor& blocks) {
  for (std::size_t i = 0; i < arena_.parameters().size(); ++i) {
    if (arena_.parameters()[i].name == name) {
      return arena_.hold(static_cast<std::int64_t>(i), blocks);
    }
  }
  throw core::ConfigError("The model has no parameter \"" + name + "\" to be held in blocks.");
}

std::vector<Decoder::Held> Decoder::held() const {
  std::vector<Held> all;
  for (std::size_t i = 0; i < arena_.parameters().size(); ++i) {
    const nn::Parameter& each = arena_.parameters()[i];
    if (each.held == nullptr) continue;
    all.push_back({each.name, each.held->name, arena_.blocks(static_cast<std::int64_t>(i))});
  }
  return all;
}

std::vector<std::pair<std::string, at::Tensor>> Decoder::named_parameters() const {
  std::vector<std::pair<std::string, at::Tensor>> all;
  for (std::size_t i = 0; i < arena_.parameters().size(); ++i) {
    if (arena_.parameters()[i].held != nullptr) continue;
    all.emplace_back(arena_.parameters()[i].name, arena_.leaf(static_cast<int64_t>(i)));
  }
  return all;
}

void Decoder::check_ids(const at::Tensor& ids, bool values) const {
  require<DataError>(ids.dim() == 2 && ids.scalar_type() == at::kLong,
                     "Token ids must be int64 of shape [batch, time], not ",
                     c10::toString(ids.scalar_type()), " with ", ids.dim(), " dimensions.");
  require<DataError>(ids.numel() > 0, "Token ids are empty: give at least one token.");
  require<DataError>(ids.size(1) <= config_.max_position_embeddings, "The sequence has ",
                     ids.size(1), " tokens, but the model's context holds ",
                     config_.max_position_embeddings, ": shorten it.");
  if (!values) return;
  const int64_t low = ids.min().item<int64_t>(), high = ids.max().item<int64_t>();
  require<DataError>(low >= 0 && high < config_.vocab_size, "Token id ", low < 0 ? low : high,
                     " lies outside the vocabulary of ", config_.vocab_size,
                     " tokens: was the text encoded with this model's tokenizer?");
}

ops::Positions Decoder::positions(const at::Tensor& ids, const at::Tensor& segments) const {
  ops::Positions positions;
  const auto take_tables = [&](int64_t longest) {
    if (!rotary_follows_length(config_, longest)) {
      positions.cos = rotary_.cos;
      positions.sin = rotary_.sin;
      return;
    }
    const RotaryTables own = rotary_tables(config_, ids.size(1), longest);
    positions.cos = own.cos.to(ids.device());
    positions.sin = own.sin.to(ids.device());
  };
  if (!segments.defined()) {
    take_tables(ids.size(1));
    return positions;
  }
  require<DataError>(segments.sizes() == ids.sizes(), "segments must have the shape of the ids.");
  const int64_t batch = ids.size(0), time = ids.size(1);
  const at::Tensor on_cpu = segments.to(at::kCPU, at::kInt).contiguous();
  const at::Tensor place = at::empty({batch, time}, at::kLong);
  const auto* segment = on_cpu.const_data_ptr<int32_t>();
  auto* at = place.data_ptr<int64_t>();
  for (int64_t i = 0; i < batch * time; ++i) {
    at[i] = i % time != 0 && segment[i] == segment[i - 1] ? at[i - 1] + 1 : 0;
  }
  take_tables(config_.rope_scaling == "dynamic" ? place.max().item<int64_t>() + 1 : 0);
  if (ops::device_ops(ids) != nullptr) ops::find_documents(place, ids.device(), positions);
  positions.ids = place.to(ids.device());
  return positions;
}

namespace {

// The tables with rows of zeros for places behind the context, which no token has: rows of packed
// documents may be longer.
void lengthen(ops::Positions& positions, std::int64_t time) {
  for (at::Tensor* table : {&positions.cos, &positions.sin}) {
    if (!table->defined() || table->size(0) >= time) continue;
    *table =
        at::cat({*table, at::zeros({time - table->size(0), table->size(1)}, table->options())});
  }
}

}  // namespace

ops::Positions Decoder::local(ops::Positions positions) const {
  positions.cos = local_rotary_.cos;
  positions.sin = local_rotary_.sin;
  return positions;
}

namespace {

at::Tensor dropped(const at::Tensor& x, double rate, nn::Pass& pass) {
  return rate > 0 ? ops::dropout(x, rate, pass.next_dropout_seed()) : x;
}

}  // namespace

nn::Stream Decoder::run_block(std::int64_t layer, nn::Stream stream, nn::Pass& pass) const {
  const Block& block = blocks_[layer];
  const std::int64_t time = stream.x.size(1);
  // Read anew by every block: one that computes twice has a graph of its own.
  if (relative_bias_.count > 0) {
    const at::Tensor bias = ops::plain_leaf(pass.weight(relative_bias_));
    pass.attention_bias = bias.index_select(0, buckets_.narrow(0, 0, time)).t().contiguous();
  }
  // What a part adds to the stream.
  const auto added = [&](at::Tensor made, const nn::Norm& norm) {
    if (norm.exists()) made = norm.forward(made, pass);
    return dropped(made, pass.drop.residual, pass);
  };
  const at::Tensor attended =
      added(block.attention.forward(stream, block.input_norm, pass), block.attention_output_norm);
  if (!config_.parallel_residual) stream.change = attended;
  const at::Tensor made = block.moe ? block.moe->forward(stream, block.mlp_norm, pass)
                                    : block.mlp.forward(stream, block.mlp_norm, pass);
  stream.change = added(made, block.mlp_output_norm);
  if (config_.parallel_residual) stream.change = stream.change.add(attended);
  return stream;
}

VirtualLayout Decoder::laid(const at::Tensor& ids, const at::Tensor& labels,
                            const at::Tensor& segments) const {
  const std::int64_t count = adapters_.virtual_tokens();
  if (count == 0) return {ids, labels, segments, {}};
  const auto made =
      with_virtual_tokens(ids, labels, segments, count, config_.max_position_embeddings);
  require<DataError>(!buckets_.defined() || made.ids.size(1) <= config_.max_position_embeddings,
                     "A row of documents with their virtual tokens has ", made.ids.size(1),
                     " tokens, but relative positions reach ", config_.max_position_embeddings,
                     ": take shorter rows.");
  return made;
}

nn::Stream Decoder::embed(const at::Tensor& ids, nn::Pass& pass) const {
  at::Tensor x = ops::embedding(ids, pass.weight(tokens_));
  if (pass.virtuals.places.defined()) x = pass.adapters->with_embeddings(x, pass);
  if (config_.embedding_multiplier != 1) x = x.mul(config_.embedding_multiplier);
  if (learned_positions_.count > 0) {
    const at::Tensor places =
        pass.positions.ids.defined()
            ? pass.positions.ids
            : at::arange(ids.size(1), ids.options()).unsqueeze(0).expand_as(ids);
    x = x.add(ops::embedding(places, pass.weight(learned_positions_)));
  }
  return {dropped(x, pass.drop.embedding, pass), {}};
}

nn::Stream Decoder::trunk(const at::Tensor& ids, nn::Pass& pass) const {
  nn::Stream stream = embed(ids, pass);
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    if (pass.skips_layer()) continue;
    const nn::Stage block = [this, i](nn::Stream stream, nn::Pass& pass) {
      return run_block(static_cast<int64_t>(i), std::move(stream), pass);
    };
    const bool again = static_cast<int64_t>(i) < pass.compute.checkpointed;
    stream = again ? nn::checkpointed(block, stream, pass) : block(stream, pass);
  }
  stream.settle();
  return stream;
}

at::Tensor Decoder::loss_of(const at::Tensor& stream, const at::Tensor& labels,
                            const nn::Pass& pass, double scale, ops::LossTerms terms) const {
  const auto [rows, targets] = labelled(stream, labels);
  terms.softcap = config_.logit_softcap;
  return ops::linear_cross_entropy(final_norm_.forward(rows, pass), pass.weight(head_), targets,
                                   scale, terms);
}

// The teacher reads the rows as they are, without the virtual tokens that an adapter puts between
// them: the places with a label are the same, in the same order.
at::Tensor Decoder::divergence_of(const at::Tensor& stream, const at::Tensor& laid_labels,
                                  const at::Tensor& ids, const at::Tensor& labels,
                                  const at::Tensor& segments, const nn::Pass& pass,
                                  const LossOptions& options) const {
  const auto& [teacher, compute, asked] = *options.teaching;
  ops::Divergence divergence = asked;
  divergence.softcap = config_.logit_softcap;
  divergence.teacher_softcap = teacher->config_.logit_softcap;
  ops::Speaker theirs;
  {
    const c10::AutoGradMode none(false);
    nn::Pass reading = teacher->begin(ids, segments, compute);
    const at::Tensor x = labelled(teacher->trunk(ids, reading).x, labels, kAlways).x;
    theirs = {teacher->final_norm_.forward(x, reading), reading.weight(teacher->head_)};
  }
  const auto [rows, targets] = labelled(stream, laid_labels, kAlways);
  return ops::linear_divergence({final_norm_.forward(rows, pass), pass.weight(head_)}, theirs,
                                targets, options.scale, divergence);
}

// The sums are looked at before it is known what they count. Where the head has a gradient of its
// own, which is added up while the logits are at hand, it is computed twice.
Decoder::Losses Decoder::scaled_loss_of(const at::Tensor& stream, const at::Tensor& labels,
                                        const nn::Pass& pass, const LossOptions& options) const {
  ops::LossTerms terms;
  terms.softcap = config_.logit_softcap;
  const std::vector<std::int64_t> counts = labels_a_row(labels);
  const at::Tensor all = labels.reshape({-1});
  const at::Tensor places = all.ne(core::kIgnoredLabel).nonzero().view({-1});
  const at::Tensor targets = all.index_select(0, places);
  const at::Tensor x =
      final_norm_.forward(stream.reshape({all.size(0), -1}).index_select(0, places), pass);
  const at::Tensor rewards =
      config_.reward_head ? ops::linear(x, reward_head(pass), {}).to(at::kFloat) : at::Tensor();
  const ops::Weight head = config_.reward_head ? ops::Weight{} : pass.weight(head_);
  const bool records = at::GradMode::is_enabled();
  const bool once = config_.reward_head || !records || (head.frozen() && !head.direct());
  std::vector<double> sums(counts.size());
  std::vector<at::Tensor> losses(counts.size());
  const auto loss_of_row = [&](std::size_t row, std::int64_t first, double scale) {
    if (config_.reward_head) return rewards.narrow(0, first, counts[row]).sum().mul(scale);
    return ops::linear_cross_entropy(x.narrow(0, first, counts[row]), head,
                                     targets.narrow(0, first, counts[row]), scale, terms);
  };
  {
    const c10::AutoGradMode mode(records && once);
    std::int64_t first = 0;
    for (std::size_t row = 0; row < sums.size(); first += counts[row], ++row) {
      if (counts[row] == 0) continue;
      losses[row] = loss_of_row(row, first, 1.0);
      sums[row] = losses[row].item<double>();
    }
  }
  const std::vector<double> scales = options.row_scales(sums);
  at::Tensor total = at::zeros({}, stream.options().dtype(at::kFloat));
  std::int64_t first = 0;
  for (std::size_t row = 0; row < sums.size(); first += counts[row], ++row) {
    if (counts[row] == 0 || scales[row] == 0) continue;
    total = total.add(once ? losses[row].mul(scales[row]) : loss_of_row(row, first, scales[row]));
  }
  if (!options.other_labels.defined()) return {total};
  // Virtual tokens stand in front of every row that has a label.
  const std::int64_t added = labels.size(1) - options.other_labels.size(1);
  const at::Tensor beside =
      at::constant_pad_nd(options.other_labels, {added, 0}, core::kIgnoredLabel);
  const at::Tensor others = loss_of(stream, beside, pass, options.scale, {});
  Losses made{total.add(others)};
  made.others = others.item<double>();
  return made;
}

nn::Pass Decoder::begin(const at::Tensor& ids, const at::Tensor& segments,
                        const nn::Compute& compute) const {
  nn::Pass pass{arena_, compute, positions(ids, segments)};
  pass.local_positions = local(pass.positions);
  lengthen(pass.positions, ids.size(1));
  lengthen(pass.local_positions, ids.size(1));
  if (!adapters_.used().empty()) pass.adapters = &adapters_;
  return pass;
}

void Decoder::prepare_adapters(const nn::Compute& compute) {
  if (!compute.adapted) adapters_.prepare(arena_, compute.dtype);
}

void Decoder::require_words() const {
  require<core::ConfigError>(!config_.reward_head,
                             "A reward model says how good a text is, and has no head for tokens: "
                             "ask it with model.reward(texts), or take the model it was made of.");
}

ops::Weight Decoder::reward_head(const nn::Pass& pass) const {
  ops::Weight learned = adapters_.score(pass.compute);
  return learned.leaves.empty() ? pass.weight(reward_) : learned;
}

std::pair<at::Tensor, nn::Pass> Decoder::read(const at::Tensor& ids,
                                              const nn::Compute& compute) const {
  const VirtualLayout rows = laid(ids, {}, {});
  nn::Pass pass = begin(rows.ids, {}, compute);
  pass.virtuals = rows.places;
  const at::Tensor stream = trunk(rows.ids, pass).x;
  const std::int64_t added = rows.ids.size(1) - ids.size(1);
  const at::Tensor x = final_norm_.forward(
      added == 0 ? stream : stream.narrow(1, added, ids.size(1)).contiguous(), pass);
  return {x, pass};
}

at::Tensor Decoder::logits(const at::Tensor& ids, const nn::Compute& compute) {
  require_words();
  check_ids(ids);
  prepare_adapters(compute);
  const auto [x, pass] = read(ids, compute);
  return ops::soft_cap(ops::linear(x, pass.weight(head_), {}), config_.logit_softcap);
}

at::Tensor Decoder::attention(const at::Tensor& ids) {
  check_ids(ids);
  const c10::AutoGradMode none(false);
  prepare_adapters({});
  const VirtualLayout rows = laid(ids, {}, {});
  nn::Pass pass = begin(rows.ids, {});
  pass.virtuals = rows.places;
  std::vector<at::Tensor> weights;
  pass.attention_weights = &weights;
  trunk(rows.ids, pass);
  return at::stack(weights);
}

at::Tensor Decoder::rewards(const at::Tensor& ids, const nn::Compute& compute) {
  require<core::ConfigError>(config_.reward_head,
                             "This model has no reward head: train one with objective reward.");
  check_ids(ids);
  prepare_adapters(compute);
  const auto [x, pass] = read(ids, compute);
  return ops::linear(x, reward_head(pass), {}).to(at::kFloat).squeeze(-1);
}

std::vector<at::Tensor> Decoder::Losses::roots() const {
  std::vector<at::Tensor> all;
  for (const at::Tensor& each : {words, routers}) {
    if (each.defined() && each.requires_grad()) all.push_back(each);
  }
  return all;
}

Decoder::Losses Decoder::losses(const at::Tensor& given_ids, const at::Tensor& given_labels,
                                const at::Tensor& given_segments, const LossOptions& options) {
  check_ids(given_ids, !options.ids_checked);
  require<DataError>(
      given_labels.sizes() == given_ids.sizes() && given_labels.scalar_type() == at::kLong,
      "labels must be int64 and have the shape of the ids.");
  const auto [ids, labels, segments, places] = laid(given_ids, given_labels, given_segments);
  if (!options.row_scales) require_words();
  prepare_adapters(options.compute);
  if (options.compute.direct_gradients && arena_.learns()) arena_.gradients();
  if (options.compute.dtype != at::kFloat) arena_.shadow(options.compute.dtype);
  nn::Pass pass = begin(ids, segments, options.compute);
  pass.virtuals = places;
  pass.training = options.training;
  if (options.training) pass.drop = drop_rates(config_);
  pass.dropout_seed = options.dropout_seed;
  const auto [x, change, of_routers] = trunk(ids, pass);
  Losses made;
  if (options.row_scales) {
    made = scaled_loss_of(x, labels, pass, options);
  } else if (options.teaching) {
    made.words = divergence_of(x, labels, given_ids, given_labels, given_segments, pass, options);
  } else {
    made.words = loss_of(x, labels, pass, options.scale, options.terms);
  }
  const auto heads = static_cast<double>(prediction_heads_.count());
  for (std::int64_t i = 0; options.prediction_weight > 0 && i < prediction_heads_.count(); ++i) {
    const at::Tensor ahead =
        loss_of(prediction_heads_.forward(i, x, pass), labels_ahead(labels, segments, i + 1), pass,
                options.scale * options.prediction_weight / heads, {});
    made.words = made.words.add(ahead.sub(ahead.detach()));
  }
  if (!of_routers.defined()) return made;
  // These rows count among those of a step as their labels do.
  const at::Tensor means = of_routers / static_cast<double>(pass.routers);
  made.share = labels.ne(core::kIgnoredLabel).sum().item<double>() * options.scale;
  made.routers = means[0] * (config_.router_aux_loss_coef * made.share) +
                 means[1] * (config_.router_z_loss_coef * made.share);
  made.of_routers = means.detach();
  return made;
}

at::Tensor Decoder::prediction_losses(const at::Tensor& given_ids, const at::Tensor& given_labels,
                                      const at::Tensor& given_segments) {
  check_ids(given_ids);
  require<core::ConfigError>(prediction_heads_.count() > 0,
                             "This model has no prediction heads: make it with prediction_heads.");
  const auto [ids, labels, segments, places] = laid(given_ids, given_labels, given_segments);
  nn::Pass pass = begin(ids, segments);
  pass.virtuals = places;
  const at::Tensor x = trunk(ids, pass).x;
  std::vector<at::Tensor> losses;
  for (std::int64_t i = 0; i < prediction_heads_.count(); ++i) {
    const at::Tensor targets = labels_ahead(labels, segments, i + 1);
    const auto count = targets.ne(core::kIgnoredLabel).sum().item<std::int64_t>();
    require<DataError>(count > 0, "No label is left for prediction head ", i, ": the rows of ",
                       labels.size(1), " tokens are too short for it.");
    losses.push_back(loss_of(prediction_heads_.forward(i, x, pass), targets, pass,
                             1.0 / static_cast<double>(count), {}));
  }
  return at::stack(losses);
}

at::Tensor Decoder::loss(const at::Tensor& ids, const at::Tensor& labels,
                         const at::Tensor& segments, bool as_trained) {
  const int64_t targets = labels.ne(core::kIgnoredLabel).sum().item<int64_t>();
  require<DataError>(targets > 0, "No label is left to learn from: all are -100.");
  const Losses made =
      losses(ids, labels, segments, {{}, 1.0 / static_cast<double>(targets), as_trained});
  return made.routers.defined() ? made.words.add(made.routers) : made.words;
}

}  // namespace omnima::models

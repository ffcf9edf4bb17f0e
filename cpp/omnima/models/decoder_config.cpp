#include "omnima/models/decoder_config.h"

#include <algorithm>
#include <cmath>

#include "omnima/core/error.h"
#include "omnima/models/decoder_config_checks.h"

namespace omnima::models {
namespace {

using core::ConfigError;
using core::Field;
using core::FieldValue;
using core::require;

constexpr double kMost = 1 << 24;
constexpr double kMostExperts = 4096;
constexpr std::int64_t kMostRotary = 1 << 26;  // cosines and sines: 256 MiB

template <class Visit>
void each_expert_option(DecoderConfig& c, Visit& visit) {
  visit(Field{"num_experts", std::int64_t{0}, "experts in the mlp's place; 0: a plain mlp", 0,
              kMostExperts},
        c.num_experts);
  visit(Field{"num_experts_per_tok", std::int64_t{2}, "experts that a token is sent to", 1,
              kMostExperts},
        c.num_experts_per_tok);
  visit(Field{"moe_intermediate_size", std::int64_t{0},
              "width inside an expert; 0: intermediate_size", 0, kMost},
        c.moe_intermediate_size);
  visit(Field{"shared_expert_intermediate_size", std::int64_t{0},
              "width inside an expert that all tokens pass; 0: there is none", 0, kMost},
        c.shared_expert_intermediate_size);
  visit(Field{"decoder_sparse_step", std::int64_t{1},
              "every n-th layer has experts, the others a plain mlp", 1, kMost},
        c.decoder_sparse_step);
  visit(Field{"norm_topk_prob", true, "the weights of a token's experts sum to 1", 0, 1},
        c.norm_topk_prob);
  visit(Field{"expert_capacity", 0.0,
              "in training an expert takes so many times its even share of tokens; 0: all come", 0,
              kMostExperts},
        c.expert_capacity);
  visit(Field{"router_aux_loss_coef", 0.01, "weight of the routers' load-balance loss in training",
              0, 1e3},
        c.router_aux_loss_coef);
  visit(Field{"router_z_loss_coef", 0.001, "weight of the routers' z-loss in training", 0, 1e3},
        c.router_z_loss_coef);
}

template <class Visit>
void each_sparse_option(DecoderConfig& c, Visit& visit) {
  visit(Field{"blocksparse_block_size", std::int64_t{0},
              "tokens of the blocks by which sparse attention sees; 0: it is dense", 0, kMost},
        c.blocksparse_block_size);
  visit(Field{"blocksparse_num_local_blocks", std::int64_t{4},
              "blocks that a token sees up to its own, that included", 1, kMost},
        c.blocksparse_num_local_blocks);
  visit(Field{"blocksparse_vert_stride", std::int64_t{8},
              "every n-th block is seen by all tokens after it", 1, kMost},
        c.blocksparse_vert_stride);
  visit(Field{"blocksparse_homo_head_pattern", false,
              "all heads see the same blocks; false: each head other strided ones", 0, 1},
        c.blocksparse_homo_head_pattern);
  visit(Field{"dense_attention_every_n_layers", std::int64_t{0},
              "every n-th layer of block-sparse attention is dense; 0: none is", 0, kMost},
        c.dense_attention_every_n_layers);
}

// What came after the plain Llama and GPT-2 shapes: all off by default.
template <class Visit>
void each_option(DecoderConfig& c, Visit& visit) {
  visit(Field{"embedding_dropout", -1.0, "dropout after the embedding; -1: as dropout", -1, 0.95},
        c.embedding_dropout);
  visit(Field{"attention_dropout", 0.0, "probability of zeroing an attention weight in training", 0,
              0.95},
        c.attention_dropout);
  visit(Field{"layer_drop", 0.0, "probability of leaving a block out of a training pass", 0, 0.95},
        c.layer_drop);
  visit(
      Field{"attention_output_bias", true, "attention_bias is on the output projection, too", 0, 1},
      c.attention_output_bias);
  visit(Field{"qk_norm", false, "RMSNorm of each query and key head before its rotary turn", 0, 1},
        c.qk_norm);
  visit(Field{"qk_norm_over_heads", false, "the norm of queries and keys is over all heads at once",
              0, 1},
        c.qk_norm_over_heads);
  visit(Field{"norm_placement",
              std::string("before"),
              "where norms stand: before attention and mlp, after them, or both",
              0,
              0,
              {"before", "after", "both"}},
        c.norm_placement);
  visit(Field{"parallel_residual", false, "attention and mlp read the same stream, side by side", 0,
              1},
        c.parallel_residual);
  visit(Field{"embedding_multiplier", 1.0, "what embeddings are multiplied by", 1e-6, 1e6},
        c.embedding_multiplier);
  visit(Field{"attention_scale", 0.0,
              "what attention scores are multiplied by; 0: 1 / sqrt(head_dim)", 0, 1e6},
        c.attention_scale);
  visit(
      Field{"partial_rotary_factor", 1.0, "share of each head that rotary positions turn", 1e-3, 1},
      c.partial_rotary_factor);
  visit(Field{"no_rope_layer_interval", std::int64_t{0},
              "every n-th layer has no rotary positions; 0: all have", 0, kMost},
        c.no_rope_layer_interval);
  visit(Field{"rope_local_theta", 0.0,
              "base of the rotary frequencies, unscaled, of layers with a sliding window; 0: that "
              "of the others",
              0, 1e9},
        c.rope_local_theta);
  visit(Field{"rope_scaling",
              std::string("none"),
              "how rotary frequencies stretch to a longer context",
              0,
              0,
              {"none", "linear", "dynamic", "yarn", "llama3"}},
        c.rope_scaling);
  visit(Field{"rope_factor", 1.0, "how many times longer the context becomes", 1, 1024},
        c.rope_factor);
  visit(Field{"rope_original_context", std::int64_t{0},
              "context the frequencies were made for; 0: max_position_embeddings / rope_factor", 0,
              kMost},
        c.rope_original_context);
  visit(Field{"rope_beta_fast", 32.0, "yarn: turns in the context from which a pair stays", 1e-3,
              1e4},
        c.rope_beta_fast);
  visit(Field{"rope_beta_slow", 1.0, "yarn: turns in the context below which a pair is stretched",
              1e-3, 1e4},
        c.rope_beta_slow);
  visit(Field{"rope_attention_factor", 0.0,
              "yarn: factor of cosines and sines; 0: 0.1 ln(rope_factor) + 1", 0, 100},
        c.rope_attention_factor);
  visit(Field{"rope_low_freq_factor", 1.0,
              "llama3: turns in the context below which a pair is stretched", 1e-3, 1e4},
        c.rope_low_freq_factor);
  visit(Field{"rope_high_freq_factor", 4.0, "llama3: turns in the context from which a pair stays",
              1e-3, 1e4},
        c.rope_high_freq_factor);
  visit(Field{"relative_buckets", std::int64_t{32},
              "relative positions: distances that are told apart, the farther ones in groups", 2,
              kMost},
        c.relative_buckets);
  visit(Field{"relative_max_distance", std::int64_t{128},
              "relative positions: from here on all distances are one", 2, kMost},
        c.relative_max_distance);
  visit(Field{"sliding_window", std::int64_t{0},
              "newest tokens that one sees, itself included; 0: the whole context", 0, kMost},
        c.sliding_window);
  visit(Field{"sliding_window_pattern", std::int64_t{0},
              "every n-th layer sees the whole context; 0: none does", 0, kMost},
        c.sliding_window_pattern);
  each_sparse_option(c, visit);
  each_expert_option(c, visit);
  visit(Field{"attention_softcap", 0.0, "attention scores become cap * tanh(score / cap); 0: off",
              0, 1e6},
        c.attention_softcap);
  visit(Field{"logit_softcap", 0.0, "logits become cap * tanh(logit / cap); 0: off", 0, 1e6},
        c.logit_softcap);
  visit(Field{"causal", true, "tokens see only those before them; false: both sides", 0, 1},
        c.causal);
  visit(Field{"reward_head", false,
              "a head that says how good a text is, in the place of the one for tokens", 0, 1},
        c.reward_head);
  visit(Field{"prediction_heads", std::int64_t{0},
              "extra heads, in training only, that predict the tokens after the next one", 0, 16},
        c.prediction_heads);
}

// One row a member: its description and where it lives. Member pointers keep both in one place.
template <class Visit>
void each_member(DecoderConfig& c, Visit visit) {
  const auto size = [](const char* name, const char* meaning, double least) {
    return Field{name, std::int64_t{0}, meaning, least, kMost};
  };
  visit(size("vocab_size", "number of token ids", 1), c.vocab_size);
  visit(size("hidden_size", "width of the residual stream", 1), c.hidden_size);
  visit(size("intermediate_size",
             "width inside the mlp; 0: 8/3 of hidden_size with a gate, else 4x", 0),
        c.intermediate_size);
  visit(size("num_hidden_layers", "number of blocks", 1), c.num_hidden_layers);
  visit(size("num_attention_heads", "number of query heads", 1), c.num_attention_heads);
  visit(size("num_key_value_heads", "number of key and value heads; 0: as many as query heads", 0),
        c.num_key_value_heads);
  visit(size("head_dim", "width of one head; 0: hidden_size / num_attention_heads", 0), c.head_dim);
  visit(size("max_position_embeddings", "context length in tokens", 1), c.max_position_embeddings);
  visit(Field{"norm", std::string("rms_norm"), "normalisation", 0, 0, {"rms_norm", "layer_norm"}},
        c.norm);
  visit(Field{"norm_eps", 1e-5, "added to the variance before the root", 1e-12, 1e-1}, c.norm_eps);
  visit(Field{"positions",
              std::string("rotary"),
              "how positions enter",
              0,
              0,
              {"rotary", "learned", "alibi", "relative", "none"}},
        c.positions);
  visit(Field{"rope_theta", 10000.0, "base of the rotary frequencies", 1, 1e9}, c.rope_theta);
  visit(Field{"activation",
              std::string("swiglu"),
              "mlp activation",
              0,
              0,
              {"swiglu", "gelu", "gelu_tanh", "geglu", "geglu_tanh", "relu2"}},
        c.activation);
  visit(Field{"attention_bias", false, "biases on q, k, v and the output projection", 0, 1},
        c.attention_bias);
  visit(Field{"mlp_bias", false, "biases in the mlp", 0, 1}, c.mlp_bias);
  visit(Field{"tie_word_embeddings", true, "output projection shares the embedding", 0, 1},
        c.tie_word_embeddings);
  visit(Field{"dropout", 0.0, "probability of zeroing an activation in training", 0, 0.95},
        c.dropout);
  visit(Field{"initializer_range", 0.02, "standard deviation of the initial weights", 1e-6, 1},
        c.initializer_range);
  visit(Field{"depth_scaled_init", true, "output projections drawn with std / sqrt(2 * layers)", 0,
              1},
        c.depth_scaled_init);
  each_option(c, visit);
}

}  // namespace

const std::vector<Field>& DecoderConfig::fields() {
  static const std::vector<Field> all = [] {
    DecoderConfig scratch;
    std::vector<Field> list;
    each_member(scratch, [&](Field field, auto&) { list.push_back(std::move(field)); });
    return list;
  }();
  return all;
}

DecoderConfig DecoderConfig::from_values(const std::map<std::string, FieldValue>& values) {
  std::vector<std::string> names;
  for (const auto& field : fields()) names.push_back(field.name);
  for (const auto& [name, value] : values) {
    if (std::find(names.begin(), names.end(), name) != names.end()) continue;
    // Not by require(), whose words are made before it looks: the nearest name takes a while.
    throw ConfigError(core::message("Unknown model field \"", name, "\". The nearest is \"",
                                    core::nearest_name(name, names), "\"."));
  }
  DecoderConfig config;
  each_member(config, [&](const Field& field, auto& member) {
    const auto found = values.find(field.name);
    if (found == values.end()) return;
    FieldValue value = found->second;
    // Whole numbers are welcome where a real number is asked for.
    if (std::holds_alternative<double>(field.default_value)) {
      if (const auto* whole = std::get_if<std::int64_t>(&value))
        value = static_cast<double>(*whole);
    }
    core::check_field(field, value);
    member = std::get<std::decay_t<decltype(member)>>(value);
  });
  if (config.num_key_value_heads == 0) config.num_key_value_heads = config.num_attention_heads;
  if (config.head_dim == 0 && config.num_attention_heads > 0) {
    require<ConfigError>(config.hidden_size % config.num_attention_heads == 0, "hidden_size ",
                         config.hidden_size, " is not a multiple of num_attention_heads ",
                         config.num_attention_heads, ": change one, or give head_dim.");
    config.head_dim = config.hidden_size / config.num_attention_heads;
  }
  if (config.intermediate_size == 0) {
    config.intermediate_size = config.gated() ? config.hidden_size * 8 / 3 : config.hidden_size * 4;
  }
  if (config.moe_intermediate_size == 0 && config.num_experts > 0) {
    config.moe_intermediate_size = config.intermediate_size;
  }
  if (config.rope_original_context == 0 && config.rope_scaling != "none") {
    config.rope_original_context = std::max<std::int64_t>(
        1, std::llround(static_cast<double>(config.max_position_embeddings) / config.rope_factor));
  }
  config.check();
  return config;
}

std::map<std::string, FieldValue> DecoderConfig::values() const {
  std::map<std::string, FieldValue> all;
  DecoderConfig copy = *this;
  each_member(copy, [&](const Field& field, auto& member) { all[field.name] = member; });
  return all;
}

bool DecoderConfig::gated() const {
  return activation == "swiglu" || activation == "geglu" || activation == "geglu_tanh";
}

bool DecoderConfig::drops() const {
  return dropout > 0 || embedding_dropout > 0 || attention_dropout > 0 || layer_drop > 0;
}

bool DecoderConfig::norms_before() const { return norm_placement != "after"; }

bool DecoderConfig::norms_after() const { return norm_placement != "before"; }

std::int64_t DecoderConfig::rotary_dims() const {
  return static_cast<std::int64_t>(static_cast<double>(head_dim) * partial_rotary_factor);
}

bool DecoderConfig::is_turned(std::int64_t layer) const {
  const bool left_out = no_rope_layer_interval > 0 && (layer + 1) % no_rope_layer_interval == 0;
  return positions == "rotary" && !left_out;
}

bool DecoderConfig::is_turned_locally(std::int64_t layer) const {
  return is_turned(layer) && rope_local_theta > 0 && window_of(layer) > 0;
}

double DecoderConfig::scale_of_scores() const {
  return attention_scale > 0 ? attention_scale : 1.0 / std::sqrt(static_cast<double>(head_dim));
}

std::int64_t DecoderConfig::window_of(std::int64_t layer) const {
  const bool whole = sliding_window_pattern > 0 && (layer + 1) % sliding_window_pattern == 0;
  return whole ? 0 : sliding_window;
}

std::int64_t DecoderConfig::blocksparse_shift() const {
  if (blocksparse_homo_head_pattern) return 0;
  return std::max<std::int64_t>(1, blocksparse_vert_stride / num_attention_heads);
}

core::BlockPattern DecoderConfig::blocks_of(std::int64_t layer) const {
  const std::int64_t every = dense_attention_every_n_layers;
  if (blocksparse_block_size == 0 || (every > 0 && (layer + 1) % every == 0)) return {};
  return {blocksparse_block_size, blocksparse_num_local_blocks, blocksparse_vert_stride,
          blocksparse_shift()};
}

double DecoderConfig::seen_pairs(std::int64_t time) const {
  double pairs = 0;
  for (std::int64_t layer = 0; layer < num_hidden_layers; ++layer) {
    pairs += core::seen_pairs(time, num_attention_heads, window_of(layer), blocks_of(layer));
  }
  return pairs;
}

bool DecoderConfig::has_experts(std::int64_t layer) const {
  return num_experts > 0 && (layer + 1) % decoder_sparse_step == 0;
}

void DecoderConfig::check() const {
  DecoderConfig copy = *this;
  each_member(copy, [&](const Field& field, auto& member) { core::check_field(field, member); });
  require<ConfigError>(num_attention_heads % num_key_value_heads == 0, "num_attention_heads ",
                       num_attention_heads, " is not a multiple of num_key_value_heads ",
                       num_key_value_heads, ": query heads share key-value heads in equal groups.");
  // Products of these fields are counted in 64 bits everywhere: none may come near their end.
  const auto real = [](std::int64_t x) { return static_cast<double>(x); };
  const double heads = real(num_attention_heads + num_key_value_heads) * real(head_dim);
  const double experts = real(num_experts) * (3 * real(moe_intermediate_size) + 1) +
                         3 * real(shared_expert_intermediate_size);
  const double block = real(hidden_size) * (2 * heads + 3 * real(intermediate_size) + experts);
  const double outer = real(hidden_size) * (2 * real(vocab_size) + real(max_position_embeddings)) +
                       real(head_dim) * real(max_position_embeddings);
  const double parameters = real(num_hidden_layers) * block + outer;
  require<ConfigError>(parameters <= 1e12, "These fields make a model of about ", parameters,
                       " parameters, but at most 1e12 can be counted here: is one of hidden_size, ",
                       "head_dim, intermediate_size and num_hidden_layers a slip?");
  require<ConfigError>(positions != "rotary" || max_position_embeddings * head_dim <= kMostRotary,
                       "max_position_embeddings ", max_position_embeddings, " with head_dim ",
                       head_dim, " asks for rotary tables of ",
                       max_position_embeddings * head_dim / (1 << 18),
                       " MiB: lower max_position_embeddings to the context that is used, at most ",
                       kMostRotary / head_dim, " here.");
  require<ConfigError>(positions != "rotary" || head_dim % 2 == 0, "head_dim ", head_dim,
                       " is odd, but rotary positions turn pairs: take an even head_dim.");
  check_together(*this);
}

}  // namespace omnima::models

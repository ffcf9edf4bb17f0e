#include "omnima/models/decoder_config.h"

#include <algorithm>

#include "omnima/core/error.h"

namespace omnima::models {
namespace {

using core::ConfigError;
using core::Field;
using core::FieldValue;
using core::require;

constexpr double kMost = 1 << 24;
constexpr std::int64_t kMostRotary = 1 << 26;  // cosines and sines: 256 MiB

// One row a member: its description and where it lives. Member pointers keep both in one place.
template <class Visit>
void each_member(DecoderConfig& c, Visit visit) {
  const auto size = [](const char* name, const char* meaning, double least) {
    return Field{name, std::int64_t{0}, meaning, least, kMost};
  };
  visit(size("vocab_size", "number of token ids", 1), c.vocab_size);
  visit(size("hidden_size", "width of the residual stream", 1), c.hidden_size);
  visit(size("intermediate_size", "width inside the mlp; 0: 8/3 of hidden_size for swiglu, else 4x",
             0),
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
              {"rotary", "learned", "none"}},
        c.positions);
  visit(Field{"rope_theta", 10000.0, "base of the rotary frequencies", 1, 1e9}, c.rope_theta);
  visit(Field{"activation",
              std::string("swiglu"),
              "mlp activation",
              0,
              0,
              {"swiglu", "gelu", "gelu_tanh"}},
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
    require<ConfigError>(std::find(names.begin(), names.end(), name) != names.end(),
                         "Unknown model field \"", name, "\". The nearest is \"",
                         core::nearest_name(name, names), "\".");
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
    config.intermediate_size =
        config.activation == "swiglu" ? config.hidden_size * 8 / 3 : config.hidden_size * 4;
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

void DecoderConfig::check() const {
  DecoderConfig copy = *this;
  each_member(copy, [&](const Field& field, auto& member) { core::check_field(field, member); });
  require<ConfigError>(num_attention_heads % num_key_value_heads == 0, "num_attention_heads ",
                       num_attention_heads, " is not a multiple of num_key_value_heads ",
                       num_key_value_heads, ": query heads share key-value heads in equal groups.");
  // Products of these fields are counted in 64 bits everywhere: none may come near their end.
  const auto real = [](std::int64_t x) { return static_cast<double>(x); };
  const double heads = real(num_attention_heads + num_key_value_heads) * real(head_dim);
  const double block = real(hidden_size) * (2 * heads + 3 * real(intermediate_size));
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
}

}  // namespace omnima::models

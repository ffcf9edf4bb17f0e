// The fields of GenerateOptions: names, defaults, bounds and meanings.
#include "omnima/generate/options.h"

#include "omnima/core/error.h"

namespace omnima::generate {
namespace {

using core::Field;
using core::FieldValue;

template <class Visit>
void each_member(GenerateOptions& o, Visit visit) {
  constexpr double kMost = 1 << 24;
  visit(Field{"max_new_tokens", o.max_new_tokens, "most tokens to write", 1, kMost},
        o.max_new_tokens);
  visit(Field{"temperature", o.temperature, "divides the logits; 0: the likeliest token", 0, 1000},
        o.temperature);
  visit(Field{"top_k", o.top_k, "draw from the k likeliest tokens only; 0: from all", 0, kMost},
        o.top_k);
  visit(Field{"top_p", o.top_p, "draw from the fewest tokens that hold this probability", 0, 1},
        o.top_p);
  visit(Field{"min_p", o.min_p, "drop tokens below this share of the likeliest one", 0, 1},
        o.min_p);
  visit(Field{"repetition_penalty", o.repetition_penalty,
              "makes tokens that were seen less likely; 1: off", 1e-3, 1000},
        o.repetition_penalty);
  visit(Field{"frequency_penalty", o.frequency_penalty,
              "taken from a token's logit for each time that it was written; 0: off", -100, 100},
        o.frequency_penalty);
  visit(Field{"presence_penalty", o.presence_penalty,
              "taken from the logits of tokens that were written; 0: off", -100, 100},
        o.presence_penalty);
  visit(Field{"speculative_tokens", o.speculative_tokens,
              "most tokens to guess ahead, which changes no text; 0: none", 0, 64},
        o.speculative_tokens);
  visit(Field{"prompt_precision",
              o.prompt_precision,
              "number format of the products of a long prompt",
              0,
              0,
              {"fp32", "bf16"}},
        o.prompt_precision);
  visit(Field{"cache_precision",
              o.cache_precision,
              "number format of the keys and values that a sequence remembers",
              0,
              0,
              {"fp32", "bf16", "int8"}},
        o.cache_precision);
}

}  // namespace

const std::vector<Field>& GenerateOptions::fields() {
  static const std::vector<Field> all = [] {
    GenerateOptions scratch;
    std::vector<Field> list;
    each_member(scratch, [&](Field field, auto&) { list.push_back(std::move(field)); });
    return list;
  }();
  return all;
}

GenerateOptions GenerateOptions::from_values(const std::map<std::string, FieldValue>& values) {
  std::vector<std::string> names;
  for (const auto& field : fields()) names.push_back(field.name);
  std::size_t known = 0;
  GenerateOptions options;
  each_member(options, [&](const Field& field, auto& member) {
    const auto found = values.find(field.name);
    if (found == values.end()) return;
    ++known;
    FieldValue value = found->second;
    // Whole numbers are welcome where a real number is asked for.
    if (std::holds_alternative<double>(field.default_value)) {
      if (const auto* whole = std::get_if<std::int64_t>(&value)) {
        value = static_cast<double>(*whole);
      }
    }
    core::check_field(field, value);
    member = std::get<std::decay_t<decltype(member)>>(value);
  });
  for (const auto& [name, value] : values) {
    if (known == values.size()) break;
    bool found = false;
    for (const auto& field : names) found = found || field == name;
    core::require<core::ConfigError>(found, "Unknown generation option \"", name,
                                     "\". The nearest is \"", core::nearest_name(name, names),
                                     "\".");
  }
  return options;
}

}  // namespace omnima::generate

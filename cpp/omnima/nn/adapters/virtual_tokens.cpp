#include "omnima/nn/adapters/virtual_tokens.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/randint.h>

#include <algorithm>

#include "omnima/core/error.h"
#include "omnima/core/field.h"

namespace omnima::nn {
namespace {

constexpr double kPrefixSpread = 0.02;

void check(const AdapterOptions& options) {
  core::check_field({"virtual_tokens", std::int64_t{20}, "tokens in front", 1, 1 << 16},
                    options.virtual_tokens);
}

at::Tensor words_of(const Arena& base) {
  const auto& parameters = base.parameters();
  const auto found = std::find_if(parameters.begin(), parameters.end(), [](const Parameter& each) {
    return each.name == "model.embed_tokens.weight";
  });
  core::require<core::ConfigError>(found != parameters.end(),
                                   "The model has no embedding that a prompt could begin with.");
  return base.values({found - parameters.begin(), 1});
}

}  // namespace

Prompt::Prompt(const Arena& base, std::vector<Site> sites, const AdapterOptions& options)
    : Adapter(std::move(sites), options) {
  check(options_);
  const at::Tensor words = words_of(base);
  const bool drawn = options_.init == "gaussian";
  core::check_field({"init", std::string("default"), "of a prompt", 0, 0, {"default", "gaussian"}},
                    options_.init);
  embeddings_ = arena_.add(
      {"prompt_embeddings", {options_.virtual_tokens, words.size(1)}, drawn ? 1.0 : 0.0});
  build(base);
  if (drawn) return;
  // Those of words, drawn on the CPU so that a seed gives the same ones on every device.
  auto generator = at::detail::createCPUGenerator(options_.seed);
  const at::Tensor ids =
      at::randint(words.size(0), {options_.virtual_tokens}, generator, at::kLong);
  arena_.values(embeddings_).copy_(words.index_select(0, ids.to(words.device())));
}

at::Tensor Prompt::embeddings(const Compute& compute) const {
  return ops::plain_leaf(arena_.weight(embeddings_, compute));
}

void Prompt::stand_beside(ops::AdaptedModel& model) const {
  model.embeddings = arena_.values(embeddings_);
}

Prefix::Prefix(const Arena& base, std::vector<Site> sites, const AdapterOptions& options)
    : Adapter(std::move(sites), options) {
  check(options_);
  core::check_field({"init", std::string("default"), "of a prefix", 0, 0, {"default", "gaussian"}},
                    options_.init);
  const double spread = options_.init == "gaussian" ? 1.0 : kPrefixSpread;
  for (const Site& site : sites_) {
    keys_values_.push_back(
        arena_.add({site.name + ".prefix", {options_.virtual_tokens, 2 * site.rows}, spread}));
  }
  build(base);
}

at::Tensor Prefix::keys_values(Slot layer, const Compute& compute) const {
  for (std::size_t i = 0; i < sites_.size(); ++i) {
    if (sites_[i].layer.first == layer.first) {
      return ops::plain_leaf(arena_.weight(keys_values_[i], compute));
    }
  }
  return {};
}

void Prefix::stand_beside(ops::AdaptedModel& model) const {
  for (const Slot own : keys_values_) model.keys_values.push_back(arena_.values(own));
}

}  // namespace omnima::nn

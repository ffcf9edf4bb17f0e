#include "omnima/nn/adapters/adapters.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "omnima/core/error.h"
#include "omnima/core/field.h"
#include "omnima/core/mix.h"

namespace omnima::nn {

using core::ConfigError;
using core::require;

namespace {

int64_t index_of(const Arena& base, const std::string& name) {
  const auto& parameters = base.parameters();
  const auto found = std::find_if(parameters.begin(), parameters.end(),
                                  [&](const Parameter& each) { return each.name == name; });
  require<ConfigError>(found != parameters.end(), "The model has no parameter \"", name,
                       "\" that an adapter could change.");
  return found - parameters.begin();
}

}  // namespace

Slot find_bias(const Arena& base, Slot layer) {
  std::string name = base.parameters()[layer.first].name;
  name.replace(name.rfind(".weight"), std::string::npos, ".bias");
  const auto& parameters = base.parameters();
  const auto found = std::find_if(parameters.begin(), parameters.end(),
                                  [&](const Parameter& each) { return each.name == name; });
  if (found == parameters.end()) return {};
  return {found - parameters.begin(), layer.count};
}

Site Adapters::find_site(const Arena& base, const std::string& name,
                         const std::vector<std::string>& modules) {
  require<ConfigError>(!modules.empty(), "The site \"", name, "\" names no module of the model.");
  const int64_t first = index_of(base, modules[0] + ".weight");
  for (const Slot slot : base.factors()) {
    if (first < slot.first || first >= slot.first + slot.count) continue;
    Site site{name, slot};
    for (int64_t i = slot.first; i < first; ++i) site.first += base.parameters()[i].sizes[0];
    for (std::size_t i = 0; i < modules.size(); ++i) {
      const int64_t at = index_of(base, modules[i] + ".weight");
      require<ConfigError>(at == first + static_cast<int64_t>(i) && at < slot.first + slot.count,
                           "\"", modules[i], "\" does not lie behind the module before it, so \"",
                           name, "\" is no single layer.");
      site.rows += base.parameters()[at].sizes[0];
    }
    site.inputs = base.parameters()[first].sizes[1];
    return site;
  }
  throw ConfigError("\"" + modules[0] + "\" is no linear layer of a block: adapters stand there.");
}

void Adapters::add(Arena& base, const std::string& name, std::shared_ptr<Adapter> adapter) {
  require<ConfigError>(!all_.contains(name), "There is an adapter \"", name,
                       "\" already: give another name, or remove that one.");
  all_[name] = std::move(adapter);
  base.set_learning(false);
  use({{name, 1.0}});
}

void Adapters::remove(Arena& base, const std::string& name) {
  get(name);
  auto rest = used_;
  rest.erase(name);
  use(rest);
  all_.erase(name);
  if (all_.empty()) base.set_learning(true);
}

const std::shared_ptr<Adapter>& Adapters::get(const std::string& name) const {
  const auto found = all_.find(name);
  if (found != all_.end()) return found->second;
  std::string known;
  for (const auto& each : names()) known += (known.empty() ? "" : ", ") + each;
  throw ConfigError("There is no adapter \"" + name +
                    "\"; there are: " + (known.empty() ? "none" : known) + ".");
}

Adapters::Counted Adapters::counted(const std::map<std::string, double>& weights) const {
  Counted active;
  for (const auto& [name, weight] : weights) {
    require<ConfigError>(std::isfinite(weight), "The weight of adapter \"", name,
                         "\" is not finite.");
    Adapter* each = get(name).get();
    require<ConfigError>(each->combines() || (weights.size() == 1 && weight == 1), "The adapter \"",
                         name, "\" of kind ", each->options().kind,
                         " is used alone and counted once: merge it to go further.");
    active.emplace_back(each, weight);
  }
  return active;
}

void Adapters::use(const std::map<std::string, double>& weights) {
  active_ = counted(weights);
  used_ = weights;
  const Adapter* learns = learning().get();
  for (auto& [name, each] : all_) each->arena().set_learning(each.get() == learns);
}

std::vector<std::string> Adapters::names() const {
  std::vector<std::string> names;
  for (const auto& [name, each] : all_) names.push_back(name);
  return names;
}

std::shared_ptr<Adapter> Adapters::learning() const {
  if (used_.size() != 1 || used_.begin()->second != 1) return nullptr;
  return all_.at(used_.begin()->first);
}

void Adapters::prepare(const Arena& base, at::ScalarType type) {
  for (const auto& [each, weight] : active_) each->prepare(base, type);
}

ops::Adapted Adapters::of(Slot layer, const Pass& pass) const {
  ops::Adapted adapted;
  const auto place = static_cast<std::uint64_t>(layer.first) + 1;
  const std::uint64_t seed = pass.training ? core::mix(pass.dropout_seed, place) | 1 : 0;
  for (const auto& [each, weight] : active_)
    each->adapt(layer, pass.compute, weight, seed, adapted);
  return adapted;
}

bool Adapters::follow(Slot layer) const {
  return !active_.empty() && active_[0].first->follows(layer);
}

at::Tensor Adapters::behind(Slot layer, const at::Tensor& y, const Pass& pass) const {
  return follow(layer) ? active_[0].first->behind(layer, y, pass.compute) : y;
}

ops::Weight Adapters::score(const Compute& compute) const {
  if (active_.empty()) return {};
  const Adapter& first = *active_[0].first;  // one with a head is used alone
  return first.arena().weight(first.score(), compute);
}

std::int64_t Adapters::virtual_tokens() const {
  return active_.empty() ? 0 : active_[0].first->virtual_tokens();
}

namespace {

at::Tensor placed(const at::Tensor& x, const at::Tensor& rows, const VirtualPlaces& places) {
  const at::Tensor made = rows.to(x.scalar_type()).index_select(0, places.which);
  return x.flatten(0, 1).index_copy(0, places.places, made).view_as(x);
}

// Keys [tokens, heads, head_dim] as they are before tokens at places 0, 1, … turn them.
at::Tensor turned_back(const at::Tensor& keys, const ops::Positions& positions) {
  if (!positions.cos.defined()) return keys;
  const auto table = [&](const at::Tensor& of) {
    return of.narrow(0, 0, keys.size(0)).unsqueeze(1);  // [tokens, 1, head_dim / 2]
  };
  const at::Tensor cos = table(positions.cos), sin = table(positions.sin);
  const at::Tensor length = cos.square().add(sin.square());
  const std::int64_t half = cos.size(2);
  const at::Tensor one = keys.narrow(2, 0, half), two = keys.narrow(2, half, half);
  return at::cat(
      {one.mul(cos).add(two.mul(sin)).div(length), two.mul(cos).sub(one.mul(sin)).div(length)}, 2);
}

}  // namespace

at::Tensor Adapters::with_embeddings(const at::Tensor& x, const Pass& pass) const {
  const at::Tensor rows = active_[0].first->embeddings(pass.compute);
  return rows.defined() ? placed(x, rows, pass.virtuals) : x;
}

at::Tensor Adapters::with_keys_values(const at::Tensor& qkv, Slot layer,
                                      const ops::AttentionShape& shape,
                                      const ops::Positions& positions, const Pass& pass) const {
  const at::Tensor own = active_[0].first->keys_values(layer, pass.compute);
  if (!own.defined()) return qkv;
  const std::int64_t tokens = own.size(0), width = shape.kv_heads * shape.head_dim;
  const at::Tensor keys = turned_back(
      own.narrow(1, 0, width).view({tokens, shape.kv_heads, shape.head_dim}), positions);
  const at::Tensor queries = at::zeros({tokens, shape.heads * shape.head_dim}, own.options());
  return placed(qkv,
                at::cat({queries, keys.reshape({tokens, width}), own.narrow(1, width, width)}, 1),
                pass.virtuals);
}

bool Adapters::merge() const {
  return std::all_of(active_.begin(), active_.end(),
                     [](const auto& each) { return each.first->merges(); });
}

ops::AdaptedModel Adapters::beside(const Arena& base,
                                   const std::map<std::string, double>& weights) const {
  const Counted active = counted(weights);
  ops::AdaptedModel made;
  for (const auto& [each, weight] : active) {
    each->prepare(base, at::kFloat);
    each->stand_beside(made);
  }
  for (const Slot slot : base.factors()) {
    ops::Adapted adapted;
    for (const auto& [each, weight] : active) each->adapt(slot, {}, weight, 0, adapted);
    if (adapted.empty()) continue;
    int64_t first = 0;
    for (int64_t i = slot.first; i < slot.first + slot.count; ++i) {
      const Parameter& parameter = base.parameters()[i];
      const std::string name = parameter.name.substr(0, parameter.name.rfind(".weight"));
      made.linears[name] = ops::rows_of(adapted, first, parameter.sizes[0]);
      first += parameter.sizes[0];
    }
  }
  return made;
}

std::vector<std::pair<std::string, at::Tensor>> Adapters::merged(const Arena& base) const {
  // A layer's parts lie one behind the other: its matrix is changed as a whole and then named.
  struct Layer {
    Slot slot, bias;
    at::Tensor weights, biases;
  };
  std::map<int64_t, Layer> layers;
  const auto make = [&](Slot slot) {
    Layer layer{slot, find_bias(base, slot), base.values(slot).clone(), {}};
    if (layer.bias.count > 0) layer.biases = base.values(layer.bias).clone();
    return layer;
  };
  for (const auto& [each, weight] : active_) {
    each->prepare(base, at::kFloat);
    if (!each->merges()) continue;
    for (std::size_t i = 0; i < each->sites().size(); ++i) {
      const Site& site = each->sites()[i];
      auto& layer = layers[site.layer.first];
      if (!layer.weights.defined()) layer = make(site.layer);
      if (!layer.biases.defined() && each->has_biases()) {
        layer.biases = at::zeros({layer.weights.size(0)}, layer.weights.options());
      }
      const auto rows = [&](const at::Tensor& x) {
        return x.defined() ? x.narrow(0, site.first, site.rows) : x;
      };
      each->merge(i, weight, {rows(layer.weights), rows(layer.biases)});
    }
  }
  std::vector<std::pair<std::string, at::Tensor>> made;
  const auto name_parts = [&](Slot slot, const at::Tensor& values, const std::string& kind) {
    int64_t row = 0;
    for (int64_t i = slot.first; i < slot.first + slot.count; ++i) {
      const Parameter& parameter = base.parameters()[i];
      std::string name = parameter.name;
      name.replace(name.rfind('.') + 1, std::string::npos, kind);
      made.emplace_back(name, values.narrow(0, row, parameter.sizes[0]));
      row += parameter.sizes[0];
    }
  };
  for (const auto& [first, layer] : layers) {
    name_parts(layer.slot, layer.weights, "weight");
    if (layer.biases.defined()) name_parts(layer.slot, layer.biases, "bias");
  }
  for (const auto& [each, weight] : active_) {
    if (each->score().count == 0) continue;
    made.emplace_back("score.weight", each->arena().values(each->score()));
  }
  return made;
}

}  // namespace omnima::nn

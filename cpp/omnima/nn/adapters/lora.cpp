#include "omnima/nn/adapters/lora.h"

#include <ATen/TensorOperators.h>

#include "omnima/core/error.h"
#include "omnima/nn/adapters/initial.h"

namespace omnima::nn {

Lora::Lora(const Arena& base, std::vector<Site> sites, const AdapterOptions& options)
    : Lora(base, std::move(sites), options, Unbuilt{}) {
  build(base);
}

Lora::Lora(const Arena&, std::vector<Site> sites, const AdapterOptions& options, Unbuilt)
    : Adapter(std::move(sites), options) {
  for (std::size_t i = 0; i < sites_.size(); ++i) {
    const Site& site = sites_[i];
    core::require<core::ConfigError>(site.rank > 0, "The rank of \"", site.name, "\" is ",
                                     site.rank, ", but must be at least 1.");
    layers_[site.layer.first].sites.push_back(i);
  }
  downs_.resize(sites_.size());
  ups_.resize(sites_.size());
  // The A of a layer lie together, so that one product serves all its sites.
  for (auto& [first, layer] : layers_) {
    for (const std::size_t i : layer.sites) {
      const Site& site = sites_[i];
      downs_[i] = arena_.add({site.name + ".lora_A.weight", {site.rank, site.inputs}});
      if (layer.down.count++ == 0) layer.down.first = downs_[i].first;
    }
    for (const std::size_t i : layer.sites) {
      const Site& site = sites_[i];
      ups_[i] = arena_.add({site.name + ".lora_B.weight", {site.rows, site.rank}});
    }
  }
}

void Lora::build(const Arena& base) {
  Adapter::build(base);
  for (std::size_t i = 0; i < sites_.size(); ++i) {
    draw_low_rank(base, sites_[i], options_, i, arena_.values(downs_[i]), arena_.values(ups_[i]));
  }
  if (!starts_from_base(options_.init)) return;
  initial_ = std::make_unique<Arena>();
  for (const auto& parameter : arena_.parameters()) initial_->add(parameter);
  initial_->build(std::nullopt, base.weights().device());
  at::Tensor(initial_->weights()).copy_(arena_.weights());
  initial_->set_learning(false);
}

std::vector<std::pair<std::string, at::Tensor>> Lora::constants() const {
  if (!initial_) return {};
  return {{"initial", initial_->weights()}};
}

std::vector<std::string> Lora::rates() const {
  if (options_.up_rate == 1) return {};
  return {"*.lora_B.weight:lr=" + std::to_string(options_.up_rate)};
}

void Lora::prepare(const Arena& base, at::ScalarType type) {
  Adapter::prepare(base, type);
  if (initial_ && type != at::kFloat) initial_->shadow(type);
}

void Lora::adapt(Slot slot, const Compute& compute, double weight, std::uint64_t dropout_seed,
                 ops::Adapted& adapted) const {
  const auto found = layers_.find(slot.first);
  if (found == layers_.end()) return;
  const Layer& layer = found->second;
  const auto add = [&](const Arena& arena, double times, double dropout) {
    ops::LowRank product{arena.weight(layer.down, compute), {}, dropout, dropout_seed};
    int64_t begin = 0;
    for (const std::size_t i : layer.sites) {
      const Site& site = sites_[i];
      product.parts.push_back({site.first, site.rows, begin, site.rank,
                               arena.weight(ups_[i], compute), times * site.scale});
      begin += site.rank;
    }
    adapted.products.push_back(std::move(product));
  };
  add(arena_, weight, dropout_seed == 0 ? 0.0 : options_.dropout);
  if (initial_) add(*initial_, -weight, 0.0);
}

std::pair<at::Tensor, at::Tensor> Lora::factors(std::size_t site) const {
  return {arena_.values(downs_[site]), arena_.values(ups_[site])};
}

void Lora::merge(std::size_t site, double weight, const SiteWeights& into) const {
  const double times = weight * sites_[site].scale;
  at::Tensor matrix = into.weight;
  const auto [down, up] = factors(site);
  if (!initial_) {
    matrix.addmm_(up, down, 1, times);
    return;
  }
  // The difference is small beside each: summed first.
  at::Tensor change = up.matmul(down);
  change.sub_(initial_->values(ups_[site]).matmul(initial_->values(downs_[site])));
  matrix.add_(change, times);
}

}  // namespace omnima::nn

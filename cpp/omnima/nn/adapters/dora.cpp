#include "omnima/nn/adapters/dora.h"

#include <ATen/TensorOperators.h>
#include <c10/core/GradMode.h>

#include "omnima/core/error.h"
#include "omnima/nn/adapters/initial.h"

namespace omnima::nn {

Dora::Dora(const Arena& base, std::vector<Site> sites, const AdapterOptions& options)
    : Lora(base, std::move(sites), options, Unbuilt{}) {
  core::require<core::ConfigError>(!starts_from_base(options.init),
                                   "DoRA begins with the base as it is: init ", options.init,
                                   " is for LoRA.");
  for (const Site& site : sites_) {
    magnitudes_.push_back(arena_.add({site.name + ".lora_magnitude_vector", {site.rows}}));
  }
  build(base);
  prepare(base, at::kFloat);
  for (std::size_t i = 0; i < sites_.size(); ++i) arena_.values(magnitudes_[i]).copy_(lengths_[i]);
}

at::Tensor Dora::lengths(const Arena& base, std::size_t site) const {
  const Site& at = sites_[site];
  const at::Tensor weight = base.values(at.layer).narrow(0, at.first, at.rows);
  const auto [down, up] = factors(site);
  // |W + sBA|^2 = |W|^2 + 2s (W A^T, B) + s^2 (B A A^T, B), row by row.
  const at::Tensor crossed = weight.matmul(down.t()).mul_(2 * at.scale);
  crossed.addmm_(up, down.matmul(down.t()), 1, at.scale * at.scale);
  return crossed.mul_(up).sum(1).add_(squares_[site]).clamp_min_(0).sqrt_();
}

void Dora::prepare(const Arena& base, at::ScalarType type) {
  Lora::prepare(base, type);
  const c10::AutoGradMode unrecorded(false);
  const auto version = static_cast<std::int64_t>(base.weights()._version());
  if (version != base_version_) {
    squares_.clear();
    for (const Site& site : sites_) {
      const at::Tensor weight = base.values(site.layer).narrow(0, site.first, site.rows);
      squares_.push_back(weight.square().sum(1));
    }
    base_version_ = version;
  }
  lengths_.clear();
  for (std::size_t i = 0; i < sites_.size(); ++i) lengths_.push_back(lengths(base, i));
}

void Dora::adapt(Slot slot, const Compute& compute, double weight, std::uint64_t dropout_seed,
                 ops::Adapted& adapted) const {
  Lora::adapt(slot, compute, weight, dropout_seed, adapted);
  const auto found = layers_.find(slot.first);
  if (found == layers_.end()) return;
  for (const std::size_t i : found->second.sites) {
    const at::Tensor factor =
        ops::plain_leaf(arena_.weight(magnitudes_[i], compute)).div(lengths_[i]);
    adapted.outputs.push_back({sites_[i].first, sites_[i].rows, {{factor}, factor.detach()}});
  }
}

void Dora::merge(std::size_t site, double weight, const SiteWeights& into) const {
  Lora::merge(site, weight, into);
  at::Tensor(into.weight).mul_(arena_.values(magnitudes_[site]).div(lengths_[site]).unsqueeze(1));
}

}  // namespace omnima::nn

#include "omnima/nn/adapters/bitfit.h"

namespace omnima::nn {

BitFit::BitFit(const Arena& base, std::vector<Site> sites, const AdapterOptions& options)
    : Adapter(std::move(sites), options) {
  for (const Site& site : sites_) {
    biases_.push_back(arena_.add({site.name + ".bias", {site.rows}}));
  }
  build(base);
  for (std::size_t i = 0; i < sites_.size(); ++i) {
    const Slot own = find_bias(base, sites_[i].layer);
    if (own.count == 0) continue;
    arena_.values(biases_[i]).copy_(base.values(own).narrow(0, sites_[i].first, sites_[i].rows));
  }
}

void BitFit::adapt(Slot layer, const Compute& compute, double, std::uint64_t,
                   ops::Adapted& adapted) const {
  for (std::size_t i = 0; i < sites_.size(); ++i) {
    const Site& site = sites_[i];
    if (site.layer.first != layer.first) continue;
    adapted.biases.push_back({site.first, site.rows, arena_.weight(biases_[i], compute)});
  }
}

void BitFit::merge(std::size_t site, double, const SiteWeights& into) const {
  at::Tensor(into.bias).copy_(arena_.values(biases_[site]));
}

}  // namespace omnima::nn

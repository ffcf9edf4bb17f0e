#include "omnima/nn/adapters/ia3.h"

#include <ATen/TensorOperators.h>

#include "omnima/core/error.h"

namespace omnima::nn {

Ia3::Ia3(const Arena& base, std::vector<Site> sites, const AdapterOptions& options)
    : Adapter(std::move(sites), options) {
  for (const Site& site : sites_) {
    std::int64_t rows = 0;
    for (std::int64_t i = 0; i < site.layer.count; ++i) {
      rows += base.parameters()[site.layer.first + i].sizes[0];
    }
    const bool whole = rows == site.rows;
    core::require<core::ConfigError>(
        !site.feeds_forward || whole, "The inputs of \"", site.name,
        "\" are those of other modules, too: IA3 scales its outputs, or the inputs of down_proj.");
    const int64_t size = site.feeds_forward ? site.inputs : site.rows;
    factors_.push_back(arena_.add({site.name + ".ia3_l", {size}, 0.0, 1.0}));
  }
  build(base);
}

void Ia3::adapt(Slot layer, const Compute& compute, double, std::uint64_t,
                ops::Adapted& adapted) const {
  for (std::size_t i = 0; i < sites_.size(); ++i) {
    const Site& site = sites_[i];
    if (site.layer.first != layer.first) continue;
    const ops::Weight factor = arena_.weight(factors_[i], compute);
    if (site.feeds_forward) {
      adapted.input = factor;
    } else {
      adapted.outputs.push_back({site.first, site.rows, factor, true});
    }
  }
}

void Ia3::merge(std::size_t site, double, const SiteWeights& into) const {
  const at::Tensor factor = arena_.values(factors_[site]);
  at::Tensor weight = into.weight, bias = into.bias;
  if (sites_[site].feeds_forward) {
    weight.mul_(factor);
    return;
  }
  weight.mul_(factor.unsqueeze(1));
  if (bias.defined()) bias.mul_(factor);
}

}  // namespace omnima::nn

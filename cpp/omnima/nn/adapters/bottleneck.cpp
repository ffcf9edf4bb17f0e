#include "omnima/nn/adapters/bottleneck.h"

#include <ATen/TensorOperators.h>

#include "omnima/core/error.h"
#include "omnima/ops/fused_linear.h"
#include "omnima/ops/linear.h"

namespace omnima::nn {
namespace {

constexpr double kSpread = 0.02;

}  // namespace

Bottleneck::Bottleneck(const Arena& base, std::vector<Site> sites, const AdapterOptions& options)
    : Adapter(std::move(sites), options) {
  for (const Site& site : sites_) {
    core::require<core::ConfigError>(
        site.layer.count == 1, "The outputs of \"", site.name,
        "\" lie beside those of other modules: a bottleneck stands behind o_proj or down_proj.");
    core::require<core::ConfigError>(site.rank > 0, "The width of the bottleneck at \"", site.name,
                                     "\" is ", site.rank, ", but must be at least 1.");
    std::string module = base.parameters()[site.layer.first].name;
    followed_.push_back(module.substr(0, module.rfind(".weight")));
    // The upper matrix is zero: the model begins as it was.
    const std::string at = site.name + ".bottleneck_";
    Layers own;
    own.down = arena_.add({at + "down.weight", {site.rank, site.rows}, kSpread});
    own.up = arena_.add({at + "up.weight", {site.rows, site.rank}});
    own.down_bias = arena_.add({at + "down.bias", {site.rank}});
    own.up_bias = arena_.add({at + "up.bias", {site.rows}});
    layers_.push_back(own);
  }
  build(base);
}

bool Bottleneck::follows(Slot layer) const {
  for (const Site& site : sites_) {
    if (site.layer.first == layer.first) return true;
  }
  return false;
}

at::Tensor Bottleneck::behind(Slot layer, const at::Tensor& y, const Compute& compute) const {
  const auto weight = [&](Slot slot) { return arena_.weight(slot, compute); };
  for (std::size_t i = 0; i < sites_.size(); ++i) {
    if (sites_[i].layer.first != layer.first) continue;
    const Layers& own = layers_[i];
    const at::Tensor middle = ops::linear(y, weight(own.down), weight(own.down_bias));
    return y.add(ops::activation_linear(middle, ops::Activation::kGelu, weight(own.up),
                                        weight(own.up_bias)));
  }
  return y;
}

void Bottleneck::stand_beside(ops::AdaptedModel& model) const {
  for (std::size_t i = 0; i < sites_.size(); ++i) {
    const Layers& own = layers_[i];
    model.behind[followed_[i]] = {arena_.values(own.down), arena_.values(own.down_bias),
                                  arena_.values(own.up), arena_.values(own.up_bias)};
  }
}

}  // namespace omnima::nn

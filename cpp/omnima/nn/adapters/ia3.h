// IA3 (Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than
// In-Context Learning"): a factor for each output of a layer, its bias included, or, where the
// layer ends the feed-forward part, for each input.
#pragma once

#include <vector>

#include "omnima/nn/adapters/adapter.h"

namespace omnima::nn {

class Ia3 : public Adapter {
 public:
  Ia3(const Arena& base, std::vector<Site> sites, const AdapterOptions& options);

  void adapt(Slot layer, const Compute& compute, double weight, std::uint64_t dropout_seed,
             ops::Adapted& adapted) const override;
  void merge(std::size_t site, double weight, const SiteWeights& into) const override;
  bool combines() const override { return false; }

 private:
  std::vector<Slot> factors_;  // by site
};

}  // namespace omnima::nn

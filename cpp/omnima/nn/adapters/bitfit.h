// BitFit (Ben Zaken et al. 2021, "BitFit: Simple Parameter-efficient Fine-tuning for
// Transformer-based Masked Language-models", arXiv 2106.10199): the biases of linear layers learn.
// The adapter has copies of them; a layer without a bias gets one, of zeros at first.
#pragma once

#include <vector>

#include "omnima/nn/adapters/adapter.h"

namespace omnima::nn {

class BitFit : public Adapter {
 public:
  BitFit(const Arena& base, std::vector<Site> sites, const AdapterOptions& options);

  void adapt(Slot layer, const Compute& compute, double weight, std::uint64_t dropout_seed,
             ops::Adapted& adapted) const override;
  void merge(std::size_t site, double weight, const SiteWeights& into) const override;
  bool combines() const override { return false; }
  bool has_biases() const override { return true; }

 private:
  std::vector<Slot> biases_;  // by site
};

}  // namespace omnima::nn

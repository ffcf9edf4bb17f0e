// LoRA (Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models"): y = x W^T + b +
// scale (x A^T) B^T, A [rank, in], B [out, rank]. The rank-stabilised scale (Kalajdzievski 2023) is
// the site's; what the initial values subtract (PiSSA, OLoRA) stays with the adapter, and the base
// keeps its bits.
#pragma once

#include <map>

#include "omnima/nn/adapters/adapter.h"

namespace omnima::nn {

class Lora : public Adapter {
 public:
  Lora(const Arena& base, std::vector<Site> sites, const AdapterOptions& options);

  // The initial values that PiSSA and OLoRA subtract.
  std::vector<std::pair<std::string, at::Tensor>> constants() const override;
  // Hayou et al. 2024, "LoRA+: Efficient Low Rank Adaptation of Large Models".
  std::vector<std::string> rates() const override;
  void adapt(Slot layer, const Compute& compute, double weight, std::uint64_t dropout_seed,
             ops::Adapted& adapted) const override;
  void prepare(const Arena& base, at::ScalarType type) override;
  void merge(std::size_t site, double weight, const SiteWeights& into) const override;

 protected:
  // For kinds with parameters of their own: declares those of LoRA, the caller builds the arena.
  struct Unbuilt {};
  Lora(const Arena& base, std::vector<Site> sites, const AdapterOptions& options, Unbuilt);
  void build(const Arena& base);
  // scale B A of a site, without what is subtracted: A, B.
  std::pair<at::Tensor, at::Tensor> factors(std::size_t site) const;

  struct Layer {
    Slot down;  // the A of its sites, one below the other
    std::vector<std::size_t> sites;
  };
  std::map<int64_t, Layer> layers_;  // by the first parameter of the base's layer
  std::vector<Slot> downs_, ups_;    // by site
  std::unique_ptr<Arena> initial_;   // laid out as arena_; null: nothing is subtracted
};

}  // namespace omnima::nn

// Bottleneck adapters (Houlsby et al. 2019, "Parameter-Efficient Transfer Learning for NLP", arXiv
// 1902.00751): behind a layer y becomes y + gelu(y D^T + d) U^T + u, by way of few numbers. Behind
// the attention and the feed-forward part they are Houlsby's, behind the latter alone Pfeiffer's
// (Pfeiffer et al. 2020, arXiv 2005.00247).
#pragma once

#include <string>
#include <vector>

#include "omnima/nn/adapters/adapter.h"

namespace omnima::nn {

class Bottleneck : public Adapter {
 public:
  // The sites are whole layers.
  Bottleneck(const Arena& base, std::vector<Site> sites, const AdapterOptions& options);

  bool follows(Slot layer) const override;
  at::Tensor behind(Slot layer, const at::Tensor& y, const Compute& compute) const override;
  void stand_beside(ops::AdaptedModel& model) const override;
  bool combines() const override { return false; }
  bool merges() const override { return false; }

 private:
  struct Layers {
    Slot down, down_bias, up, up_bias;
  };
  std::vector<Layers> layers_;         // by site
  std::vector<std::string> followed_;  // the modules of the base that they stand behind
};

}  // namespace omnima::nn

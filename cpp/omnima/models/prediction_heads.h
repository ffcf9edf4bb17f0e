// Multi-token prediction (Gloeckle et al. 2024, "Better & faster large language models via
// multi-token prediction"): extra heads on the trunk, one for each token after the next. A head is
// the feed-forward half of a block; norm and output projection after it are the model's own. They
// shape the trunk in training and are left out of all else.
#pragma once

#include <vector>

#include "omnima/models/decoder_config.h"
#include "omnima/nn/layers.h"

namespace omnima::models {

class PredictionHeads {
 public:
  PredictionHeads() = default;
  PredictionHeads(nn::Arena& arena, const DecoderConfig& config, double std, double output_std);

  std::int64_t count() const { return static_cast<std::int64_t>(heads_.size()); }
  // The stream of head `index`, from 0: it predicts label index + 1 places further on.
  at::Tensor forward(std::int64_t index, const at::Tensor& trunk, const nn::Pass& pass) const;

 private:
  struct Head {
    nn::Norm norm;
    nn::Mlp mlp;
  };
  std::vector<Head> heads_;
};

// Labels [batch, time] `ahead` places further on in the same row and document; -100 where there are
// none. segments may be undefined: no borders.
at::Tensor labels_ahead(const at::Tensor& labels, const at::Tensor& segments, std::int64_t ahead);

}  // namespace omnima::models

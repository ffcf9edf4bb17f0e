#include "omnima/models/prediction_heads.h"

#include <ATen/ops/full_like.h>

#include <string>

#include "omnima/core/labels.h"

namespace omnima::models {

PredictionHeads::PredictionHeads(nn::Arena& arena, const DecoderConfig& config, double std,
                                 double output_std) {
  for (std::int64_t i = 0; i < config.prediction_heads; ++i) {
    const std::string name = "prediction_heads." + std::to_string(i);
    heads_.push_back({nn::Norm(arena, name + ".norm", config.hidden_size,
                               config.norm == "layer_norm", config.norm_eps),
                      nn::Mlp(arena, name + ".mlp",
                              {config.hidden_size, config.intermediate_size, config.activation,
                               config.mlp_bias, std, output_std})});
  }
}

at::Tensor PredictionHeads::forward(std::int64_t index, const at::Tensor& trunk,
                                    const nn::Pass& pass) const {
  const Head& head = heads_.at(static_cast<std::size_t>(index));
  nn::Stream stream{trunk, {}};
  return trunk.add(head.mlp.forward(stream, head.norm, pass));
}

at::Tensor labels_ahead(const at::Tensor& labels, const at::Tensor& segments, std::int64_t ahead) {
  at::Tensor shifted = at::full_like(labels, core::kIgnoredLabel);
  const std::int64_t left = labels.size(1) - ahead;
  if (left <= 0) return shifted;
  at::Tensor begin = shifted.narrow(1, 0, left);
  begin.copy_(labels.narrow(1, ahead, left));
  if (segments.defined()) {
    begin.masked_fill_(segments.narrow(1, ahead, left).ne(segments.narrow(1, 0, left)),
                       core::kIgnoredLabel);
  }
  return shifted;
}

}  // namespace omnima::models

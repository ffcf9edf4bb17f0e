// Multi-token prediction: labels further on, the loss of each head, and the gradient of all.
#include "omnima/models/prediction_heads.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "omnima/core/error.h"
#include "omnima/models/decoder.h"

namespace omnima::models {
namespace {

DecoderConfig config_with(std::int64_t heads) {
  return DecoderConfig::from_values({{"vocab_size", std::int64_t{31}},
                                     {"hidden_size", std::int64_t{16}},
                                     {"num_hidden_layers", std::int64_t{1}},
                                     {"num_attention_heads", std::int64_t{2}},
                                     {"max_position_embeddings", std::int64_t{12}},
                                     {"prediction_heads", heads}});
}

at::Tensor some_ids(std::int64_t shift) {
  return at::arange(20, at::kLong).mul(7).add(shift).remainder(31).view({2, 10});
}

std::vector<std::int64_t> values(const at::Tensor& x) {
  const at::Tensor flat = x.contiguous();
  return {flat.const_data_ptr<std::int64_t>(), flat.const_data_ptr<std::int64_t>() + flat.numel()};
}

TEST(PredictionHeads, LabelsAheadStayInTheirRowAndDocument) {
  const at::Tensor labels = at::arange(8, at::kLong).view({2, 4});
  EXPECT_EQ(values(labels_ahead(labels, {}, 1)),
            (std::vector<std::int64_t>{1, 2, 3, -100, 5, 6, 7, -100}));
  const at::Tensor segments = at::tensor({0, 0, 1, 1, 0, 0, 0, 1}, at::kInt).view({2, 4});
  EXPECT_EQ(values(labels_ahead(labels, segments, 1)),
            (std::vector<std::int64_t>{1, -100, 3, -100, 5, 6, -100, -100}));
  EXPECT_EQ(values(labels_ahead(labels, {}, 4)), std::vector<std::int64_t>(8, -100));
  EXPECT_EQ(values(labels_ahead(labels, {}, 9)), std::vector<std::int64_t>(8, -100));
}

// Straight into the buffer, beside autograd through the same losses.
TEST(PredictionHeads, TheGradientIsThatOfAllHeadsAndTheValueThatOfTheNextToken) {
  Decoder model(config_with(2), 3);
  const at::Tensor ids = some_ids(0), labels = some_ids(4);
  const double weight = 0.6, targets = 20;
  const at::Tensor plain = model.loss(ids, labels, {});
  const at::Tensor ahead = model.prediction_losses(ids, labels, {});
  // The step divides every head's sum by the targets of the next token.
  const at::Tensor counts = at::tensor({18.0, 16.0}, at::kFloat);
  torch::autograd::backward({plain.add(ahead.mul(counts).sum().mul(weight / (2 * targets)))}, {});

  model.arena().zero_gradients(1);
  Decoder::LossOptions how;
  how.compute.direct_gradients = true;
  how.scale = 1.0 / targets;
  how.training = true;
  how.prediction_weight = weight;
  const at::Tensor loss = model.losses(ids, labels, {}, how).words;
  torch::autograd::backward({loss}, {});
  EXPECT_FLOAT_EQ(loss.item<float>(), plain.item<float>());
  for (std::size_t i = 0; i < model.arena().parameters().size(); ++i) {
    const auto& each = model.arena().parameters()[i];
    const at::Tensor wanted = model.arena().leaf(static_cast<std::int64_t>(i)).grad().flatten();
    const at::Tensor got = model.arena().gradients().narrow(0, each.offset, each.size());
    EXPECT_GT(wanted.abs().max().item<float>(), 0) << each.name;
    EXPECT_LT((got - wanted).abs().max().item<float>(), 1e-6) << each.name;
  }
}

TEST(PredictionHeads, WithoutWeightTheyGetNoGradient) {
  Decoder model(config_with(1), 3);
  model.arena().zero_gradients(1);
  Decoder::LossOptions how;
  how.compute.direct_gradients = true;
  torch::autograd::backward({model.losses(some_ids(0), some_ids(4), {}, how).words}, {});
  for (const auto& each : model.arena().parameters()) {
    const at::Tensor got = model.arena().gradients().narrow(0, each.offset, each.size());
    const bool of_head = each.name.starts_with("prediction_heads.");
    EXPECT_EQ(got.abs().max().item<float>() == 0, of_head) << each.name;
  }
}

TEST(PredictionHeads, WhatCannotBeIsRefused) {
  EXPECT_THROW(config_with(12), core::ConfigError);
  Decoder none(config_with(0), 3), three(config_with(3), 3);
  EXPECT_THROW(none.prediction_losses(some_ids(0), some_ids(4), {}), core::ConfigError);
  const at::Tensor two = at::zeros({1, 2}, at::kLong);
  EXPECT_THROW(three.prediction_losses(two, two, {}), core::DataError);
}

}  // namespace
}  // namespace omnima::models

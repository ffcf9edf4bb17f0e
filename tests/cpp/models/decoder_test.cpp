// The decoder: fast operators against the reference, bad input, and its configuration.
#include "omnima/models/decoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cstdlib>

#include "omnima/core/error.h"

namespace omnima::models {
namespace {

DecoderConfig small(const std::map<std::string, core::FieldValue>& changes = {}) {
  std::map<std::string, core::FieldValue> values{{"vocab_size", std::int64_t{61}},
                                                 {"hidden_size", std::int64_t{32}},
                                                 {"num_hidden_layers", std::int64_t{2}},
                                                 {"num_attention_heads", std::int64_t{4}},
                                                 {"max_position_embeddings", std::int64_t{24}}};
  for (const auto& [name, value] : changes) values[name] = value;
  return DecoderConfig::from_values(values);
}

const std::vector<std::map<std::string, core::FieldValue>>& variants() {
  using S = std::string;
  static const std::vector<std::map<std::string, core::FieldValue>> all{
      {},
      {{"num_key_value_heads", std::int64_t{2}}, {"tie_word_embeddings", false}},
      {{"num_key_value_heads", std::int64_t{1}}, {"positions", S("none")}, {"mlp_bias", true}},
      {{"norm", S("layer_norm")},
       {"positions", S("learned")},
       {"activation", S("gelu_tanh")},
       {"attention_bias", true},
       {"mlp_bias", true}},
      {{"activation", S("gelu")}, {"norm", S("layer_norm")}}};
  return all;
}

std::vector<at::Tensor> gradients(Decoder& model, const at::Tensor& ids, const at::Tensor& labels,
                                  const at::Tensor& segments) {
  std::vector<at::Tensor> result;
  for (auto& [name, leaf] : model.named_parameters()) leaf.mutable_grad() = at::Tensor();
  torch::autograd::backward({model.loss(ids, labels, segments)}, {});
  for (auto& [name, leaf] : model.named_parameters()) result.push_back(leaf.grad().clone());
  return result;
}

// The fast operators against the plain ATen meaning, loss and every gradient, with and without
// borders.
TEST(Decoder, FastOperatorsEqualTheReference) {
  for (const auto& changes : variants()) {
    Decoder model(small(changes), 3);
    const at::Tensor ids = at::randint(61, {3, 17}, at::kLong);
    at::Tensor labels = at::randint(61, {3, 17}, at::kLong);
    labels.narrow(1, 4, 3).fill_(-100);
    at::Tensor segments = at::zeros({3, 17}, at::kInt);
    segments.narrow(1, 6, 11).fill_(1);
    for (const auto& borders : {at::Tensor(), segments}) {
      const auto fast = gradients(model, ids, labels, borders);
      ::setenv("OMNIMA_REFERENCE", "1", 1);
      const auto plain = gradients(model, ids, labels, borders);
      ::unsetenv("OMNIMA_REFERENCE");
      for (std::size_t i = 0; i < fast.size(); ++i) {
        EXPECT_TRUE(at::allclose(fast[i], plain[i], 1e-4, 1e-6))
            << model.named_parameters()[i].first;
      }
    }
  }
}

TEST(Decoder, BadIdsAreNamed) {
  Decoder model(small(), 0);
  const auto message = [&](const at::Tensor& ids) -> std::string {
    try {
      model.logits(ids);
    } catch (const core::DataError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_NE(message(at::zeros({1, 3}, at::kLong) + 61).find("Token id 61"), std::string::npos);
  EXPECT_NE(message(at::zeros({1, 3}, at::kLong) - 1).find("Token id -1"), std::string::npos);
  EXPECT_NE(message(at::zeros({1, 25}, at::kLong)).find("context holds 24"), std::string::npos);
  EXPECT_NE(message(at::zeros({1, 0}, at::kLong)).find("empty"), std::string::npos);
  EXPECT_NE(message(at::zeros({3}, at::kLong)).find("[batch, time]"), std::string::npos);
  EXPECT_THROW(model.loss(at::zeros({1, 3}, at::kLong), at::zeros({1, 3}, at::kLong) - 100, {}),
               core::DataError);
  EXPECT_THROW(model.loss(at::zeros({1, 3}, at::kLong), at::zeros({1, 3}, at::kLong) + 99, {}),
               core::DataError);
}

TEST(Decoder, SegmentsMustFitTheIds) {
  Decoder model(small(), 0);
  const at::Tensor ids = at::zeros({1, 4}, at::kLong);
  EXPECT_THROW(model.loss(ids, ids, at::zeros({1, 3}, at::kInt)), core::DataError);
}

TEST(Decoder, ParametersAreNamedAsHuggingFaceNamesThem) {
  Decoder model(small({{"tie_word_embeddings", false}, {"num_hidden_layers", std::int64_t{1}}}), 0);
  std::vector<std::string> names;
  std::int64_t count = 0;
  for (const auto& [name, leaf] : model.named_parameters()) {
    names.push_back(name);
    count += leaf.numel();
  }
  EXPECT_EQ(count, model.num_parameters());
  const std::string layer = "model.layers.0.";
  EXPECT_EQ(names, (std::vector<std::string>{
                       "model.embed_tokens.weight", layer + "input_layernorm.weight",
                       layer + "self_attn.q_proj.weight", layer + "self_attn.k_proj.weight",
                       layer + "self_attn.v_proj.weight", layer + "self_attn.o_proj.weight",
                       layer + "post_attention_layernorm.weight", layer + "mlp.gate_proj.weight",
                       layer + "mlp.up_proj.weight", layer + "mlp.down_proj.weight",
                       "model.norm.weight", "lm_head.weight"}));
}

// A token's output depends on what came before it alone.
TEST(Decoder, DoesNotLookAhead) {
  for (const auto& changes : variants()) {
    Decoder model(small(changes), 3);
    const at::Tensor ids = at::randint(61, {2, 20}, at::kLong);
    at::Tensor other = ids.clone();
    other.narrow(1, 12, 8).add_(1).remainder_(61);
    const at::Tensor a = model.logits(ids).narrow(1, 0, 12),
                     b = model.logits(other).narrow(1, 0, 12);
    EXPECT_TRUE(at::allclose(a, b, 1e-5, 1e-6));
  }
}

TEST(DecoderConfig, ValuesGoThereAndBack) {
  for (const auto& changes : variants()) {
    const DecoderConfig config = small(changes);
    EXPECT_EQ(DecoderConfig::from_values(config.values()).values(), config.values());
    EXPECT_EQ(config.values().size(), DecoderConfig::fields().size());
  }
}

TEST(DecoderConfig, InconsistentFieldsAreNamed) {
  const auto message = [](const std::map<std::string, core::FieldValue>& changes) -> std::string {
    try {
      small(changes);
    } catch (const core::ConfigError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_NE(message({{"num_key_value_heads", std::int64_t{3}}}).find("multiple"),
            std::string::npos);
  EXPECT_NE(message({{"num_attention_heads", std::int64_t{5}}}).find("hidden_size"),
            std::string::npos);
  EXPECT_NE(message({{"head_dim", std::int64_t{7}}}).find("odd"), std::string::npos);
  EXPECT_NE(message({{"norms", true}}).find("\"norm\""), std::string::npos);
  EXPECT_NE(message({{"dropout", 1.5}}).find("between"), std::string::npos);
  EXPECT_NE(message({{"norm", std::int64_t{1}}}).find("wrong type"), std::string::npos);
  EXPECT_EQ(message({{"dropout", std::int64_t{0}}}), "");
}

}  // namespace
}  // namespace omnima::models

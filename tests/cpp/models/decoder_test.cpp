// The decoder: fast operators against the reference, bad input, and its configuration.
#include "omnima/models/decoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "families.h"
#include "omnima/core/error.h"

namespace omnima::models {
namespace {

DecoderConfig small(const Changes& changes = {}) {
  Changes values{{"vocab_size", std::int64_t{61}},
                 {"hidden_size", std::int64_t{32}},
                 {"num_hidden_layers", std::int64_t{2}},
                 {"num_attention_heads", std::int64_t{4}},
                 {"max_position_embeddings", std::int64_t{24}}};
  for (const auto& [name, value] : changes) values[name] = value;
  return DecoderConfig::from_values(values);
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
  for (const auto& changes : families()) {
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
  for (const auto& changes : families()) {
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
  for (const auto& changes : families()) {
    const DecoderConfig config = small(changes);
    EXPECT_EQ(DecoderConfig::from_values(config.values()).values(), config.values());
    EXPECT_EQ(config.values().size(), DecoderConfig::fields().size());
  }
}

TEST(DecoderConfig, InconsistentFieldsAreNamed) {
  const auto message = [](const Changes& changes) -> std::string {
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

TEST(DecoderConfig, CountsThePairsThatLayersSee) {
  using I = std::int64_t;
  const double dense = small().seen_pairs(20), triangle = 20 * 21 / 2;
  EXPECT_EQ(dense, 2 * 4 * triangle);
  const Changes windows{{"sliding_window", I{5}}, {"sliding_window_pattern", I{2}}};
  EXPECT_EQ(small(windows).seen_pairs(20), 4 * (triangle + triangle - 15 * 16 / 2));
  Changes blocks{{"blocksparse_block_size", I{2}},
                 {"blocksparse_num_local_blocks", I{1}},
                 {"blocksparse_vert_stride", I{5}},
                 {"blocksparse_homo_head_pattern", true}};
  // In blocks 4 and 9 all that follows sees a key; in each other block its own tokens do: 3 pairs.
  const double sparse = 4 * (8 * 3 + (12 + 11) + (2 + 1));
  EXPECT_EQ(small(blocks).seen_pairs(20), 2 * sparse);
  blocks["dense_attention_every_n_layers"] = I{2};
  EXPECT_EQ(small(blocks).seen_pairs(20), sparse + 4 * triangle);
}

TEST(DecoderConfig, CombinationsWithoutSenseAreRefused) {
  using S = std::string;
  using I = std::int64_t;
  const auto refused = [](const Changes& changes, const std::string& part) {
    try {
      small(changes);
      ADD_FAILURE() << "accepted: " << part;
    } catch (const core::ConfigError& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  refused({{"rope_scaling", S("yarn")}, {"positions", S("alibi")}}, "positions is alibi");
  refused({{"rope_factor", 2.0}}, "no effect without rope_scaling");
  refused({{"rope_original_context", I{8}}}, "no effect without rope_scaling");
  refused({{"rope_scaling", S("linear")}, {"rope_beta_fast", 9.0}}, "belong to rope_scaling yarn");
  refused({{"rope_scaling", S("yarn")}, {"rope_low_freq_factor", 2.0}}, "belong to rope_scaling");
  refused({{"rope_scaling", S("yarn")}, {"rope_beta_slow", 32.0}}, "greater than rope_beta_slow");
  refused({{"rope_scaling", S("yarn")}, {"rope_theta", 1.0}}, "take a larger one");
  refused({{"rope_scaling", S("llama3")}, {"rope_low_freq_factor", 4.0}}, "must be greater");
  refused({{"rope_scaling", S("linear")}, {"rope_original_context", I{99}}}, "is longer than");
  refused({{"rope_scaling", S("dynamic")}, {"head_dim", I{2}}}, "at least 4");
  refused({{"sliding_window_pattern", I{2}}}, "there is no sliding_window");
  refused({{"sliding_window_pattern", I{1}}, {"sliding_window", I{4}}}, "from every layer");
  refused({{"sliding_window", I{24}}}, "covers the whole context of 24");
  const Changes blocks{{"blocksparse_block_size", I{2}}, {"blocksparse_vert_stride", I{3}}};
  EXPECT_EQ(small(blocks).blocks_of(1).shift, 1);
  const auto refused_blocks = [&](Changes changes, const std::string& part) {
    changes.insert(blocks.begin(), blocks.end());
    refused(changes, part);
  };
  refused({{"blocksparse_vert_stride", I{4}}}, "no effect on dense attention");
  refused({{"dense_attention_every_n_layers", I{2}}}, "no effect on dense attention");
  refused_blocks({{"sliding_window", I{8}}}, "both say which tokens one sees");
  refused_blocks({{"causal", false}}, "looks back only");
  refused_blocks({{"dense_attention_every_n_layers", I{1}}}, "no layer block-sparse");
  refused_blocks({{"blocksparse_vert_stride", I{1}}}, "every block be seen");
  refused_blocks({{"blocksparse_num_local_blocks", I{12}}}, "cover the whole context of 24");
  refused_blocks({{"blocksparse_vert_stride", I{9}}, {"blocksparse_homo_head_pattern", true}},
                 "reaches no block");
  refused_blocks({{"blocksparse_vert_stride", I{40}}, {"blocksparse_num_local_blocks", I{11}}},
                 "take sliding_window 22 alone");
  refused({{"expert_capacity", 1.25}}, "no effect without experts");
  refused({{"decoder_sparse_step", I{2}}}, "no effect without experts");
  refused({{"num_experts", I{1}}}, "has no choice");
  refused({{"num_experts", I{2}}, {"num_experts_per_tok", I{3}}}, "more than the num_experts 2");
  refused({{"num_experts", I{4}}, {"num_experts_per_tok", I{1}}}, "learns nothing");
  refused({{"num_experts", I{4}}, {"mlp_bias", true}}, "mlp_bias is not there");
  refused({{"num_experts", I{4}}, {"decoder_sparse_step", I{3}}}, "none of the 2 layers");
  refused({{"num_experts", I{4}}, {"expert_capacity", 0.5}}, "below an even share");
  refused({{"relative_buckets", I{8}}}, "belong to positions relative");
  refused({{"positions", S("relative")}, {"relative_max_distance", I{16}}}, "greater than half");
  refused({{"embedding_dropout", -0.5}}, "is no probability");
  refused({{"layer_drop", 0.5}, {"num_hidden_layers", I{1}}}, "the only block");
}

// What training leaves out is a function of the seed, and nothing is left out elsewhere.
TEST(Decoder, DropsBySeedInTrainingAlone) {
  for (const std::string rate :
       {"dropout", "embedding_dropout", "attention_dropout", "layer_drop"}) {
    SCOPED_TRACE(rate);
    const Changes changes{{rate, 0.5}, {"initializer_range", 0.2}};
    Decoder model(small(changes), 3), plain(small({{"initializer_range", 0.2}}), 3);
    const at::Tensor ids = at::randint(61, {3, 17}, at::kLong);
    const auto loss = [&](Decoder& decoder, bool training, std::uint64_t seed) {
      return decoder.losses(ids, ids, {}, {{}, 1.0, training, seed}).words.item<float>();
    };
    EXPECT_EQ(loss(model, false, 1), loss(plain, false, 1));
    EXPECT_EQ(loss(model, true, 1), loss(model, true, 1));
    float least = loss(model, true, 1), most = least;
    for (std::uint64_t seed = 2; seed < 10; ++seed) {
      least = std::min(least, loss(model, true, seed));
      most = std::max(most, loss(model, true, seed));
    }
    EXPECT_LT(least, most);
  }
}

// With attention dropout too the fast gradients are the reference's: both draw the same.
TEST(Decoder, DropsTheSameInTheReference) {
  Decoder model(small({{"attention_dropout", 0.3}, {"layer_drop", 0.2}, {"dropout", 0.1}}), 3);
  const at::Tensor ids = at::randint(61, {3, 17}, at::kLong);
  const auto loss = [&] {
    return model.losses(ids, ids, {}, {{}, 1.0, true, 5}).words.item<float>();
  };
  const float fast = loss();
  ::setenv("OMNIMA_REFERENCE", "1", 1);
  const float plain = loss();
  ::unsetenv("OMNIMA_REFERENCE");
  EXPECT_NEAR(fast, plain, 1e-3f * std::abs(plain));
}

// LayerDrop: without a block a model is one with fewer blocks.
TEST(Decoder, LeavesWholeBlocksOut) {
  Decoder deep(small({{"layer_drop", 0.5}}), 3), flat(small({{"layer_drop", 0.5}}), 3);
  for (auto& [name, leaf] : flat.named_parameters()) {
    if (name.find("o_proj") != std::string::npos || name.find("down_proj") != std::string::npos) {
      leaf.detach().zero_();
    }
  }
  const at::Tensor ids = at::randint(61, {3, 17}, at::kLong);
  int without = 0;
  for (std::uint64_t seed = 0; seed < 32; ++seed) {
    const auto loss = [&](Decoder& decoder) {
      return decoder.losses(ids, ids, {}, {{}, 1.0, true, seed}).words.item<float>();
    };
    without += loss(deep) == loss(flat);
  }
  EXPECT_GT(without, 1);  // both of 2 blocks: a quarter of the passes
  EXPECT_LT(without, 20);
}

}  // namespace
}  // namespace omnima::models

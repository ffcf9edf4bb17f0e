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
#include "omnima/train/step.h"

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

data::Batch random_batch(std::int64_t rows, std::int64_t time, std::int64_t ignored) {
  data::Batch batch;
  batch.rows = rows;
  batch.time = time;
  for (std::int64_t i = 0; i < rows * time; ++i) {
    batch.input_ids.push_back((i * 7 + rows) % 61);
    batch.labels.push_back(i < ignored ? -100 : (i * 5 + 3) % 61);
  }
  batch.targets = rows * time - ignored;
  return batch;
}

// Uneven micro-batches give the gradient of the whole: the same first update as separate rows
// would.
TEST(TrainStep, UnevenAccumulationEqualsOneBatch) {
  auto whole = std::make_shared<Decoder>(small(), 5);
  auto parts = std::make_shared<Decoder>(small(), 5);
  data::Batch a = random_batch(2, 8, 5), b = random_batch(2, 8, 0), both = a;
  both.rows = 4;
  both.input_ids.insert(both.input_ids.end(), b.input_ids.begin(), b.input_ids.end());
  both.labels.insert(both.labels.end(), b.labels.begin(), b.labels.end());
  both.targets = a.targets + b.targets;
  train::TrainStep one(whole, {}), two(parts, {});
  const auto first = one.run_batches({both}), second = two.run_batches({a, b});
  EXPECT_NEAR(first.loss, second.loss, 1e-6);
  EXPECT_NEAR(first.grad_norm, second.grad_norm, 1e-6);
  EXPECT_TRUE(at::allclose(whole->arena().gradients(), parts->arena().gradients(), 1e-5, 1e-7));
}

TEST(TrainStep, StopsBeforeTheWeightsChangeWhenTheLossIsNotFinite) {
  for (const char* precision : {"fp32", "bf16"}) {
    auto model = std::make_shared<Decoder>(small(), 5);
    train::StepOptions options;
    options.precision = precision;
    train::TrainStep step(model, options);
    model->arena().weights().narrow(0, 40, 1).fill_(NAN);
    const at::Tensor before = model->arena().weights().clone();
    data::Batch batch = random_batch(2, 8, 0);
    EXPECT_THROW(step.run_batches({batch}), core::NonFiniteError);
    EXPECT_EQ(step.step(), 0);
    EXPECT_EQ(std::memcmp(before.data_ptr(), model->arena().weights().data_ptr(),
                          before.numel() * sizeof(float)),
              0);
  }
}

TEST(TrainStep, ContinuesBitForBitFromItsState) {
  train::StepOptions options;
  options.total_steps = 8;
  options.precision = "bf16";
  auto straight = std::make_shared<Decoder>(small({{"dropout", 0.1}}), 7);
  train::TrainStep run(straight, options);
  std::map<std::string, at::Tensor> saved;
  for (int i = 0; i < 8; ++i) {
    if (i == 4) {
      for (const auto& [name, buffer] : run.state()) saved[name] = buffer.clone();
    }
    run.run_batches({random_batch(2 + i % 2, 8, i)});
  }
  auto again = std::make_shared<Decoder>(small({{"dropout", 0.1}}), 1);
  train::TrainStep resumed(again, options);
  resumed.load_state(saved, 4);
  for (int i = 4; i < 8; ++i) resumed.run_batches({random_batch(2 + i % 2, 8, i)});
  for (const auto& [name, buffer] : run.state()) {
    EXPECT_EQ(std::memcmp(buffer.data_ptr(), resumed.state().at(name).data_ptr(), buffer.nbytes()),
              0)
        << name;
  }
}

TEST(TrainStep, RefusesAStateThatDoesNotFit) {
  auto model = std::make_shared<Decoder>(small(), 7);
  train::TrainStep step(model, {});
  auto state = step.state();
  state["exp_avg"] = at::zeros({3}, at::kFloat);
  EXPECT_THROW(step.load_state(state, 1), core::DataError);
  state.erase("exp_avg");
  EXPECT_THROW(step.load_state(state, 1), core::DataError);
  EXPECT_THROW(step.run_batches({random_batch(1, 8, 8)}), core::DataError);
}

TEST(TrainStep, LearnsARepeatedBatchInBothPrecisions) {
  for (const char* precision : {"fp32", "bf16"}) {
    auto model = std::make_shared<Decoder>(small(), 5);
    train::StepOptions options;
    options.precision = precision;
    options.lr = 1e-2;
    options.schedule = "constant";
    train::TrainStep step(model, options);
    const double before = step.run_batches({random_batch(2, 16, 0)}).loss;
    for (int i = 0; i < 60; ++i) step.run_batches({random_batch(2, 16, 0)});
    EXPECT_LT(step.run_batches({random_batch(2, 16, 0)}).loss, 0.3 * before) << precision;
    EXPECT_GT(step.time_pass(random_batch(2, 16, 0), 3), 0.0);
  }
}

}  // namespace
}  // namespace omnima::models

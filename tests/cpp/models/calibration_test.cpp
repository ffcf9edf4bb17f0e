// What calibration sees of a block, beside plain sums over everything that its layers read.
#include "omnima/models/calibration.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include "families.h"

namespace omnima::models {
namespace {

DecoderConfig small() {
  return DecoderConfig::from_values({{"vocab_size", std::int64_t{61}},
                                     {"hidden_size", std::int64_t{32}},
                                     {"num_hidden_layers", std::int64_t{2}},
                                     {"num_attention_heads", std::int64_t{4}},
                                     {"max_position_embeddings", std::int64_t{24}}});
}

// As moments are summed of it.
at::Tensor rounded(const at::Tensor& x) { return x.to(at::kBFloat16).to(at::kFloat); }

// Keeps what every layer of a pass reads, in the order in which they are reached.
struct Recorder : nn::InputObserver {
  std::vector<std::pair<nn::Slot, at::Tensor>> seen;
  void see(nn::Slot weight, const at::Tensor& x) override {
    seen.emplace_back(weight, x.reshape({-1, x.size(-1)}).clone());
  }
};

Recorder recorded(const Decoder& model, const at::Tensor& ids, std::int64_t layer) {
  Recorder recorder;
  nn::Pass pass = model.begin(ids, {});
  // As it is kept between blocks.
  const auto kept = [](nn::Stream stream) {
    return nn::Stream{stream.settle().to(at::kBFloat16).to(at::kFloat)};
  };
  nn::Stream stream = kept(model.embed(ids, pass));
  for (std::int64_t i = 0; i < layer; ++i) stream = kept(model.run_block(i, stream, pass));
  pass.observer = &recorder;
  model.run_block(layer, stream, pass);
  return recorder;
}

TEST(Calibration, MomentsAreTheMeanOverAllTokens) {
  const c10::NoGradGuard no_grad;
  const Decoder model(small(), 3);
  const at::Tensor ids = at::randint(61, {50, 24}, at::kLong);  // more than one part
  CalibrationText text(model, ids, false);
  text.pass_on(0, {});
  const Recorder plain = recorded(model, ids, 1);
  ASSERT_GE(plain.seen.size(), 4);
  for (const auto& [slot, x] : plain.seen) {
    Moments moments({slot.first + slot.count - 1});  // any parameter of a layer stands for it
    text.show(1, {}, moments);
    const at::Tensor expected = rounded(x).t().mm(rounded(x)).div(x.size(0));
    for (std::int64_t i = 0; i < slot.count; ++i) {
      EXPECT_TRUE(moments.of(slot.first + i).moments.allclose(expected, 1e-4, 1e-5));
    }
    EXPECT_FALSE(moments.of(slot.first + slot.count).moments.defined());
  }
}

TEST(Calibration, APassEndsWhereAllWasSeen) {
  const c10::NoGradGuard no_grad;
  const Decoder model(small(), 3);
  const at::Tensor ids = at::randint(61, {2, 24}, at::kLong);
  const Recorder plain = recorded(model, ids, 0);
  const nn::Slot first = plain.seen[0].first, second = plain.seen[1].first;
  Moments moments({first.first, second.first});
  moments.begin_pass();
  EXPECT_NO_THROW(moments.see(first, plain.seen[0].second));
  EXPECT_NO_THROW(moments.see(plain.seen[2].first, plain.seen[2].second));  // not asked for
  EXPECT_THROW(moments.see(second, plain.seen[1].second), Enough);
  EXPECT_FALSE(moments.of(plain.seen[2].first.first).moments.defined());
}

TEST(Calibration, DividedInputsHaveDividedMoments) {
  const c10::NoGradGuard no_grad;
  const Decoder model(small(), 3);
  const at::Tensor ids = at::randint(61, {2, 24}, at::kLong);
  const auto [slot, x] = recorded(model, ids, 0).seen[0];
  Moments moments({slot.first});
  CalibrationText(model, ids, false).show(0, {}, moments);
  const at::Tensor s = at::rand({x.size(1)}).add(0.5);
  moments.divide(slot.first, s);
  const at::Tensor y = rounded(x).div(s);
  EXPECT_TRUE(moments.of(slot.first).moments.allclose(y.t().mm(y).div(y.size(0)), 1e-4, 1e-5));
}

// A block behind one that changed, whose own first matrices have changed as well.
TEST(Calibration, TheDriftIsWhatInputsWereLessWhatTheyAreTimesWhatTheyAre) {
  const c10::NoGradGuard no_grad;
  const Decoder as_before(small(), 3);
  Decoder model(small(), 3);
  const at::Tensor ids = at::randint(61, {50, 24}, at::kLong);
  CalibrationText text(model, ids, true);
  const auto change = [&](const std::string& name, Replaced& before) {
    for (const auto& [each, parameter] : model.named_parameters()) {
      if (each != name) continue;
      before.keep(parameter.detach());
      parameter.detach().mul_(20);
    }
  };
  Replaced first, second;
  change("model.layers.0.mlp.up_proj.weight", first);
  text.pass_on(0, first);
  change("model.layers.1.self_attn.q_proj.weight", second);
  const Recorder now = recorded(model, ids, 1), then = recorded(as_before, ids, 1);
  ASSERT_EQ(now.seen.size(), then.seen.size());
  for (std::size_t i = 0; i < now.seen.size(); ++i) {
    const nn::Slot slot = now.seen[i].first;
    const at::Tensor &x = now.seen[i].second, &was = then.seen[i].second;
    Moments moments({slot.first});
    text.show(1, second, moments);
    const auto [own, drift] = moments.of(slot.first);
    EXPECT_TRUE(own.allclose(rounded(x).t().mm(rounded(x)).div(x.size(0)), 1e-4, 1e-5));
    const at::Tensor expected = rounded(was - x).t().mm(rounded(x)).div(x.size(0));
    const auto most = expected.abs().max().item<double>();
    EXPECT_GT(most, 1e-5);
    EXPECT_LT((drift - expected).abs().max().item<double>(), 2e-3 * most) << i;
  }
}

}  // namespace
}  // namespace omnima::models

// Norms of gradients, weights and updates by layer, beside ATen's over the single parameters.
#include "omnima/train/layer_norms.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linalg_vector_norm.h>

#include <cmath>
#include <cstdlib>
#include <map>

#include "omnima/core/error.h"
#include "step_fixture.h"

namespace omnima::train {
namespace {

TEST(LayerNorms, ALayerIsNamedByItsModule) {
  EXPECT_EQ(layer_of("model.layers.12.mlp.up_proj.weight"), "layers.12");
  EXPECT_EQ(layer_of("model.embed_tokens.weight"), "embed_tokens");
  EXPECT_EQ(layer_of("model.norm.weight"), "norm");
  EXPECT_EQ(layer_of("lm_head.weight"), "lm_head");
  EXPECT_EQ(layer_of("scale"), "scale");
  EXPECT_EQ(layer_of("model.layers"), "layers");
}

TEST(LayerNorms, AreThoseOfTheParameters) {
  for (const bool plain : {false, true}) {
    if (plain) ::setenv("OMNIMA_REFERENCE", "1", 1);
    auto model = small();
    TrainStep step(model, {});
    LayerNorms norms(model);
    std::map<std::string, at::Tensor> kept;
    for (const auto& [name, leaf] : model->named_parameters()) kept[name] = leaf.detach().clone();
    norms.before();
    const StepResult result = step.run_batches({some_batch(2, 16, 5)});
    const auto measured = norms.after();

    struct Sums {
      double gradient = 0, weight = 0, update = 0;
    };
    std::map<std::string, Sums> expected;
    const auto square = [](const at::Tensor& x) {
      return std::pow(at::linalg_vector_norm(x).item<double>(), 2);
    };
    const auto& parameters = model->arena().parameters();
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      Sums& sums = expected[layer_of(parameters[i].name)];
      const at::Tensor leaf = model->arena().leaf(i).detach();
      sums.weight += square(leaf);
      sums.update += square(leaf - kept.at(parameters[i].name));
      sums.gradient +=
          square(model->arena().gradients().narrow(0, parameters[i].offset, parameters[i].size()));
    }
    ASSERT_EQ(measured.size(), expected.size());
    double whole = 0;
    for (const auto& norm : measured) {
      const Sums& sums = expected.at(norm.layer);
      EXPECT_NEAR(norm.gradient, std::sqrt(sums.gradient), 1e-5) << norm.layer;
      EXPECT_NEAR(norm.weight, std::sqrt(sums.weight), 1e-4) << norm.layer;
      EXPECT_NEAR(norm.update, std::sqrt(sums.update), 1e-6) << norm.layer;
      EXPECT_GT(norm.update, 0) << norm.layer;
      whole += norm.gradient * norm.gradient;
    }
    EXPECT_NEAR(std::sqrt(whole), result.grad_norm, 1e-5);  // float sums of other blocks
    ::unsetenv("OMNIMA_REFERENCE");
  }
}

TEST(LayerNorms, NeedAStepBetween) {
  LayerNorms norms(small());
  EXPECT_THROW(norms.after(), core::Error);
  norms.before();
  for (const auto& norm : norms.after()) EXPECT_EQ(norm.update, 0);
  EXPECT_THROW(norms.after(), core::Error);
}

}  // namespace
}  // namespace omnima::train

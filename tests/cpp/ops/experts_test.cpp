// Router and experts: beside loops over tokens, the plain ATen meaning, and numerical slopes.
#include "omnima/ops/experts.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include "ops_fixture.h"

namespace omnima::ops {
namespace {

constexpr int64_t kExperts = 5;

// --- the router

// Weights, both losses and, to show which experts they are, their numbers: one vector.
Operator routed(const RouterOptions& options) {
  return [=](const Tensors& in) {
    const Routes made = route(in[0], weight_of(in[1]), options);
    const at::Tensor numbers = made.experts.to(at::kFloat);
    Tensors parts{(made.weights * (numbers + 1)).flatten(), numbers.flatten()};
    if (options.losses) parts.push_back(made.losses);
    return at::cat(parts);
  };
}

TEST(Router, EqualsThePlainMeaningInEveryNumberFormat) {
  for (const bool normalise : {false, true}) {
    for (const bool losses : {false, true}) {
      for (const int64_t chosen : {1, 2, 5}) {
        const RouterOptions options{chosen, normalise, losses};
        for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf}) {
          const Tensors in{drawn({300, 6}, 1).to(type), drawn({kExperts, 6}, 2)};
          const Outcome fast = outcome(routed(options), in);
          const ReferenceMode plain;
          expect_close(fast, outcome(routed(options), in), type == at::kFloat ? 1e-5 : 1e-2);
        }
      }
    }
  }
}

TEST(Router, GradientsAreTheSlopes) {
  for (const bool normalise : {false, true}) {
    const RouterOptions options{2, normalise, true};
    expect_slopes(
        [=](const Tensors& in) {
          const Routes made = route(in[0], weight_of(in[1]), options);
          return at::cat({made.weights.flatten(), made.losses});
        },
        {drawn({4, 3}, 1), drawn({kExperts, 3}, 2)});
  }
}

TEST(Router, LossesAreTheirFormulas) {
  // Logits ln 3 and 0 for the first row, the other way round for the second, equal for the third.
  const at::Tensor x =
      at::tensor({std::log(3.0f), 0.0f, 0.0f, std::log(3.0f), 0.0f, 0.0f}).view({3, 2});
  const at::Tensor same = at::tensor({1.0f, 0.0f, 0.0f, 1.0f}).view({2, 2});
  const Routes made = route(x, weight_of(leaf(same)), {1, false, true});
  EXPECT_LE(distance(made.weights.flatten(), at::tensor({0.75f, 0.75f, 0.5f})), 1e-6);
  EXPECT_TRUE(made.experts.flatten().equal(at::tensor({0, 1, 0}, at::kLong)));
  // Two of three rows come to the first expert; mean probabilities are a half each.
  EXPECT_NEAR(made.losses[0].item<float>(), 2 * (2.0 / 3 * 0.5 + 1.0 / 3 * 0.5), 1e-6);
  const double four = std::log(4.0), two = std::log(2.0);
  EXPECT_NEAR(made.losses[1].item<float>(), (2 * four * four + two * two) / 3, 1e-6);
}

TEST(Router, ChoosesExpertsOnceEvenAmongEqualsAndNotANumber) {
  for (const float value : {0.0f, NAN}) {
    std::vector<float> logits(4, value), weights(4);
    std::vector<int64_t> which(4);
    choose_experts(logits.data(), 4, {4, true}, which.data(), weights.data());
    EXPECT_EQ(which, (std::vector<int64_t>{0, 1, 2, 3}));
  }
}

TEST(Router, RefusesWhatDoesNotFit) {
  const Weight weight = weight_of(leaf(drawn({kExperts, 3}, 1)));
  EXPECT_TRUE(holds(message_of([&] { route(drawn({4, 2}, 1), weight, {}); }), "rows of 3"));
  EXPECT_TRUE(holds(message_of([&] { route(drawn({4, 3}, 1), weight, {6}); }), "1 to 5"));
}

// --- the experts

constexpr int64_t kRows = 7, kWidth = 6, kInner = 4;

// in: x, weights of the routes, then up (and gate) and down of each expert.
Tensors expert_inputs(Activation activation, int64_t chosen, int64_t rows = kRows) {
  Tensors in{drawn({rows, kWidth}, 1), drawn({rows, chosen}, 2).abs()};
  for (int64_t e = 0; e < kExperts; ++e) {
    in.push_back(drawn({(is_gated(activation) ? 2 : 1) * kInner, kWidth}, 10 + e));
    in.push_back(drawn({kWidth, kInner}, 20 + e));
  }
  return in;
}

// Experts of every row, none twice; the last expert gets nothing.
at::Tensor some_experts(int64_t rows, int64_t chosen) {
  at::Tensor which = at::zeros({rows, chosen}, at::kLong);
  for (int64_t i = 0; i < rows * chosen; ++i) {
    which.data_ptr<int64_t>()[i] = (i / chosen * i / chosen / 2 + i % chosen) % (kExperts - 1);
  }
  return which;
}

Operator fast_experts(Activation activation, int64_t capacity) {
  return [=](const Tensors& in) {
    std::vector<ExpertWeights> weights;
    for (std::size_t i = 2; i < in.size(); i += 2) {
      const auto of = [&](const at::Tensor& leaf) {
        return weight_of(leaf, leaf.detach().to(in[0].scalar_type()));
      };
      weights.push_back({of(in[i]), of(in[i + 1])});
    }
    const at::Tensor which = some_experts(in[0].size(0), in[1].size(1));
    return experts(in[0], {in[1].to(at::kFloat), which, {}}, weights, activation, capacity);
  };
}

// A loop over tokens: first choices are served before second ones.
Operator token_by_token(Activation activation, int64_t capacity) {
  return [=](const Tensors& in) {
    const at::Tensor which = some_experts(in[0].size(0), in[1].size(1));
    std::vector<int64_t> taken(kExperts);
    Tensors rows;
    for (int64_t row = 0; row < in[0].size(0); ++row) rows.push_back(at::zeros({1, kWidth}));
    for (int64_t choice = 0; choice < in[1].size(1); ++choice) {
      for (int64_t row = 0; row < in[0].size(0); ++row) {
        const auto e = which[row][choice].item<int64_t>();
        if (capacity > 0 && taken[e] == capacity) continue;
        ++taken[e];
        const at::Tensor inner = at::mm(in[0].narrow(0, row, 1), in[2 + 2 * e].t());
        const at::Tensor made = at::mm(activate(inner, activation), in[3 + 2 * e].t());
        rows[row] = rows[row] + made * in[1][row][choice];
      }
    }
    at::Tensor y = at::cat(rows);
    for (const auto& each : in) y = y + each.sum() * 0;  // all have a gradient
    return y;
  };
}

TEST(Experts, EqualALoopOverTokens) {
  for (const auto activation : {Activation::kSwiglu, Activation::kGelu, Activation::kRelu2}) {
    for (const int64_t chosen : {1, 2}) {
      for (const int64_t capacity : {0, 1, 3}) {
        SCOPED_TRACE(testing::Message() << chosen << " chosen, capacity " << capacity);
        expect_reference(fast_experts(activation, capacity), token_by_token(activation, capacity),
                         expert_inputs(activation, chosen), 2e-5, 4e-2);
        const ReferenceMode plain;
        expect_reference(fast_experts(activation, capacity), token_by_token(activation, capacity),
                         expert_inputs(activation, chosen), 2e-5, 4e-2);
      }
    }
  }
}

// On the CPU too these run on plain ATen; beside the float32 meaning of the same rounded values.
TEST(Experts, EqualALoopOverTokensInFloat16) {
  for (const auto activation : {Activation::kSwiglu, Activation::kGelu}) {
    for (const int64_t capacity : {0, 3}) {
      Tensors narrow, wide;
      for (const auto& x : expert_inputs(activation, 2)) {
        narrow.push_back(x.to(at::kHalf));
        wide.push_back(narrow.back().to(at::kFloat));
      }
      const Outcome half = outcome(fast_experts(activation, capacity), narrow);
      EXPECT_EQ(half.output.scalar_type(), at::kHalf);
      expect_close(half, outcome(token_by_token(activation, capacity), wide), 5e-3);
    }
  }
}

TEST(Experts, ManyRowsOnAllThreadsEqualThePlainMeaning) {
  const auto in = expert_inputs(Activation::kSwiglu, 2, 900);
  const auto run = fast_experts(Activation::kSwiglu, 200);
  const Outcome fast = outcome(run, in);
  const ReferenceMode plain;
  expect_close(fast, outcome(run, in), 2e-5);
}

TEST(Experts, GradientsAreTheSlopes) {
  expect_slopes(fast_experts(Activation::kSwiglu, 0), expert_inputs(Activation::kSwiglu, 2, 3));
}

TEST(Experts, RefuseWhatDoesNotFit) {
  const auto in = expert_inputs(Activation::kSwiglu, 2);
  const std::vector<ExpertWeights> weights{{weight_of(leaf(in[2])), weight_of(leaf(in[3]))}};
  const Routes routes{in[1], some_experts(kRows, 2), {}};
  const auto said = [&](const at::Tensor& x, Activation activation) {
    return message_of([&] { experts(x, routes, weights, activation); });
  };
  EXPECT_TRUE(holds(said(in[0].narrow(0, 0, 3), Activation::kSwiglu), "rows [rows, width]"));
  EXPECT_TRUE(holds(said(drawn({kRows, 5}, 1), Activation::kSwiglu), "6 input features"));
  EXPECT_TRUE(holds(said(in[0], Activation::kGelu), "4 input features"));
}

}  // namespace
}  // namespace omnima::ops

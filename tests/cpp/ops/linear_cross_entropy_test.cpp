// Cross-entropy by chunks of rows: the loss, both gradients, ignored labels and bad ones.
#include "omnima/ops/linear_cross_entropy.h"

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include "omnima/ops/reference.h"
#include "ops_fixture.h"

namespace omnima::ops {
namespace {

constexpr double kScale = 0.125;

at::Tensor labels_of(int64_t rows, int64_t vocab) {
  const at::Tensor labels = at::full({rows}, -100, at::kLong);
  auto* label = labels.data_ptr<int64_t>();
  for (int64_t i = 0; i < rows; ++i) {
    if (i % 5 != 3) label[i] = (i * 7 + 1) % vocab;
  }
  return labels;
}

struct Case {
  int64_t rows, width, vocab;
};

class LinearCrossEntropy : public ::testing::TestWithParam<Case> {
 protected:
  at::Tensor labels() const { return labels_of(GetParam().rows, GetParam().vocab); }
  Tensors inputs() const {
    const auto& [rows, width, vocab] = GetParam();
    return {drawn({rows, width}, 1), drawn({vocab, width}, 2)};
  }
};

TEST_P(LinearCrossEntropy, EqualsTheReference) {
  const auto fast = [&](const Tensors& x) {
    return linear_cross_entropy(x[0], weight_of(x[1]), labels(), kScale);
  };
  const auto plain = [&](const Tensors& x) {
    return reference::linear_cross_entropy(x[0], x[1], labels(), kScale);
  };
  expect_close(outcome(fast, inputs()), outcome(plain, inputs()), 2e-5);
}

TEST_P(LinearCrossEntropy, SmoothedTargetsZLossAndCapEqualTheReference) {
  for (const LossTerms terms :
       {LossTerms{0.1, 0.0}, {0.0, 0.03}, {0.4, 0.2}, {0.0, 0.0, 2.5}, {0.1, 0.02, 1.5}}) {
    const auto fast = [&](const Tensors& x) {
      return linear_cross_entropy(x[0], weight_of(x[1]), labels(), kScale, terms);
    };
    const auto plain = [&](const Tensors& x) {
      return reference::linear_cross_entropy(x[0], x[1], labels(), kScale, terms);
    };
    const Outcome expected = outcome(plain, inputs());
    expect_close(outcome(fast, inputs()), expected, 2e-5);
    EXPECT_LE(distance(fast(inputs()), expected.output), 2e-5);  // and without gradients
  }
}

TEST_P(LinearCrossEntropy, EqualsTheReferenceInBfloat16) {
  Tensors in = inputs(), wide = in;
  in[0] = in[0].to(at::kBFloat16);
  for (auto& x : wide) x = x.to(at::kBFloat16).to(at::kFloat);
  const Outcome actual = outcome(
      [&](const Tensors& x) {
        return linear_cross_entropy(x[0], weight_of(x[1], x[1].detach().to(at::kBFloat16)),
                                    labels(), kScale);
      },
      in);
  const Outcome expected = outcome(
      [&](const Tensors& x) {
        return reference::linear_cross_entropy(x[0], x[1], labels(), kScale);
      },
      wide);
  EXPECT_EQ(actual.output.scalar_type(), at::kFloat);
  EXPECT_EQ(actual.gradients[0].scalar_type(), at::kBFloat16);
  expect_close(actual, expected, 2e-2);
}

// A training step backs up from the loss itself: its factor is one.
TEST_P(LinearCrossEntropy, AddsTheWeightsGradientToTheBuffer) {
  const auto& [rows, width, vocab] = GetParam();
  const at::Tensor x = leaf(inputs()[0]), w = leaf(inputs()[1]);
  const at::Tensor y = leaf(inputs()[0]), v = leaf(inputs()[1]);
  torch::autograd::backward({reference::linear_cross_entropy(y, v, labels(), kScale)}, {});
  for (const bool plain : {false, true}) {
    const auto mode = plain ? std::make_unique<ReferenceMode>() : nullptr;
    const at::Tensor grad = at::zeros({vocab, width}, at::kFloat) + 0.5;
    x.mutable_grad() = at::Tensor();
    torch::autograd::backward({linear_cross_entropy(x, {{w}, w.detach(), grad}, labels(), kScale)},
                              {});
    EXPECT_FALSE(w.grad().defined());
    EXPECT_LE(distance(x.grad(), y.grad()), 2e-5);
    EXPECT_LE(distance(grad - 0.5, v.grad()), 2e-5);
  }
}

TEST_P(LinearCrossEntropy, IsTheSameWithoutGradients) {
  const Tensors in = inputs();
  const at::Tensor alone = linear_cross_entropy(in[0], weight_of(in[1]), labels(), kScale);
  EXPECT_FALSE(alone.requires_grad());
  EXPECT_LE(distance(alone, reference::linear_cross_entropy(in[0], in[1], labels(), kScale)), 2e-5);
}

// The last has more rows than one chunk holds.
INSTANTIATE_TEST_SUITE_P(OddSizes, LinearCrossEntropy,
                         ::testing::Values(Case{1, 1, 1}, Case{5, 3, 2}, Case{17, 8, 61},
                                           Case{70, 12, 1003}, Case{5000, 4, 37}));

TEST(LinearCrossEntropySlopes, GradientsAreSlopes) {
  expect_slopes(
      [](const Tensors& x) {
        return linear_cross_entropy(x[0], weight_of(x[1]), labels_of(5, 7), 1.0);
      },
      {drawn({5, 3}, 1), drawn({7, 3}, 2)});
}

TEST(LinearCrossEntropyLabels, AllIgnoredIsZero) {
  const at::Tensor labels = at::full({4}, -100, at::kLong);
  const Outcome none = outcome(
      [&](const Tensors& x) { return linear_cross_entropy(x[0], weight_of(x[1]), labels, 1.0); },
      {drawn({4, 3}, 1), drawn({7, 3}, 2)});
  EXPECT_EQ(none.output.item<float>(), 0.0f);
  for (const auto& gradient : none.gradients) EXPECT_EQ(gradient.abs().max().item<float>(), 0.0f);
}

TEST(LinearCrossEntropyLabels, ErrorsNameThePlaceAndTheShapes) {
  const at::Tensor hidden = drawn({4, 3}, 1);
  const Weight weight = weight_of(drawn({7, 3}, 2));
  const auto message = [&](const at::Tensor& labels) {
    return message_of([&] { linear_cross_entropy(hidden, weight, labels, 1.0); });
  };
  const at::Tensor labels = at::zeros({4}, at::kLong);
  EXPECT_EQ(message(labels), "");
  labels.data_ptr<int64_t>()[2] = 7;
  EXPECT_TRUE(holds(message(labels), "Label 7 at place 2 lies outside the vocabulary of 7"));
  labels.data_ptr<int64_t>()[2] = -1;
  EXPECT_TRUE(holds(message(labels), "Label -1 at place 2"));
  EXPECT_TRUE(holds(message(at::zeros({5}, at::kLong)), "not the shapes [4, 3] and [5]"));
  EXPECT_TRUE(holds(message(at::zeros({4}, at::kInt)), "int64"));
  EXPECT_TRUE(holds(message_of([&] {
                      linear_cross_entropy(
                          hidden.to(at::kDouble),
                          weight_of(drawn({7, 3}, 2), drawn({7, 3}, 2).to(at::kDouble)),
                          at::zeros({4}, at::kLong), 1.0);
                    }),
                    "not Double"));
}

}  // namespace
}  // namespace omnima::ops

// The operators of ops/cuda on the emulated device against their plain meaning: forward, gradients,
// both number formats, odd sizes, and where gradients go.
#include "omnima/ops/cuda/operators.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/zeros.h>

#include "../ops_fixture.h"
#include "emulated_cuda/seams.h"
#include "omnima/ops/cuda/seams.h"
#include "omnima/ops/device_ops.h"
#include "omnima/ops/embedding.h"
#include "omnima/ops/reference.h"

namespace omnima::ops::cuda {
namespace {

constexpr double kEps = 1e-5;

class NormSizes : public ::testing::TestWithParam<std::vector<int64_t>> {};

TEST_P(NormSizes, EqualTheReference) {
  const auto& sizes = GetParam();
  const Tensors in{drawn(sizes, 1) + 0.5, drawn({sizes.back()}, 2) + 1.0, drawn({sizes.back()}, 3)};
  expect_reference([](const Tensors& x) { return cuda::rms_norm(x[0], weight_of(x[1]), kEps); },
                   [](const Tensors& x) { return reference::rms_norm(x[0], x[1], kEps); },
                   {in[0], in[1]}, 2e-5);
  expect_reference(
      [](const Tensors& x) {
        return cuda::layer_norm(x[0], weight_of(x[1]), weight_of(x[2]), kEps);
      },
      [](const Tensors& x) { return reference::layer_norm(x[0], x[1], x[2], kEps); }, in, 2e-5);
}

INSTANTIATE_TEST_SUITE_P(OddSizes, NormSizes,
                         ::testing::Values(std::vector<int64_t>{1, 3}, std::vector<int64_t>{3, 7},
                                           std::vector<int64_t>{2, 5, 40},
                                           std::vector<int64_t>{70, 256}));

TEST(CudaNorm, AddsGradientsToTheBufferOfTheWeight) {
  const Tensors in{drawn({5, 12}, 1), drawn({12}, 2), drawn({12}, 3)};
  const Outcome expected =
      outcome([](const Tensors& x) { return reference::layer_norm(x[0], x[1], x[2], kEps); }, in);
  const at::Tensor weight_grad = at::zeros({12}, at::kFloat) + 3.0;
  const at::Tensor bias_grad = at::zeros({12}, at::kFloat) - 2.0;
  const Outcome got = outcome(
      [&](const Tensors& x) {
        return cuda::layer_norm(x[0], {{x[1]}, x[1].detach(), weight_grad},
                                {{x[2]}, x[2].detach(), bias_grad}, kEps);
      },
      in);
  EXPECT_LE(distance(got.gradients[0], expected.gradients[0]), 2e-5);
  EXPECT_FALSE(got.gradients[1].defined() || got.gradients[2].defined());
  EXPECT_LE(distance(weight_grad - 3.0, expected.gradients[1]), 2e-5);
  EXPECT_LE(distance(bias_grad + 2.0, expected.gradients[2]), 2e-5);
}

class ActivationSizes : public ::testing::TestWithParam<std::vector<int64_t>> {};

TEST_P(ActivationSizes, EqualTheReference) {
  const Tensors in{drawn(GetParam(), 1, 2.0)};
  for (const bool by_tanh : {false, true}) {
    expect_reference([=](const Tensors& x) { return cuda::gelu(x[0], by_tanh); },
                     [=](const Tensors& x) { return reference::gelu(x[0], by_tanh); }, in);
  }
  if (GetParam().back() % 2 != 0) return;
  expect_reference([](const Tensors& x) { return cuda::swiglu(x[0]); },
                   [](const Tensors& x) { return reference::swiglu(x[0]); }, in);
}

INSTANTIATE_TEST_SUITE_P(OddSizes, ActivationSizes,
                         ::testing::Values(std::vector<int64_t>{1, 2}, std::vector<int64_t>{3, 14},
                                           std::vector<int64_t>{2, 3, 33},
                                           std::vector<int64_t>{5, 272}));

class EmbeddingIds : public ::testing::TestWithParam<std::tuple<int64_t, int64_t, int64_t>> {};

// Few different ids make runs over several chunks.
TEST_P(EmbeddingIds, GradientEqualsThePlainOne) {
  const auto [count, width, vocab] = GetParam();
  const at::Tensor ids = (at::arange(count, at::kLong).square() * 7).remainder(vocab);
  const Tensors in{drawn({vocab, width}, 1)};
  const auto run = [&](bool fast) {
    return [&, fast](const Tensors& x) {
      return fast ? cuda::embedding(ids, weight_of(x[0])) : ops::embedding(ids, weight_of(x[0]));
    };
  };
  expect_close(outcome(run(true), in), outcome(run(false), in), 1e-5);
  const at::Tensor narrow = in[0].to(at::kBFloat16), grad = at::zeros({vocab, width}, at::kFloat);
  const at::Tensor leaf_ = leaf(in[0]), y = cuda::embedding(ids, {{leaf_}, narrow, grad});
  const at::Tensor dy = drawn(y.sizes().vec(), 99).to(at::kBFloat16);
  torch::autograd::backward({y}, {dy});
  const at::Tensor expected =
      at::zeros({vocab, width}, at::kFloat).index_add(0, ids, dy.to(at::kFloat));
  EXPECT_LE(distance(grad, expected), 1e-5);
  EXPECT_FALSE(leaf_.grad().defined());
}

INSTANTIATE_TEST_SUITE_P(Runs, EmbeddingIds,
                         ::testing::Values(std::tuple(1, 1, 1), std::tuple(200, 7, 3),
                                           std::tuple(129, 24, 1), std::tuple(64, 520, 40),
                                           std::tuple(97, 16, 200)));

struct Head {
  int64_t rows, width, vocab, most_logits;
};

class LossSizes : public ::testing::TestWithParam<Head> {};

at::Tensor labels_for(int64_t rows, int64_t vocab) {
  at::Tensor labels = (at::arange(rows, at::kLong) * 13).remainder(vocab);
  return labels.masked_fill(at::arange(rows, at::kLong).remainder(5).eq(3), -100);
}

TEST_P(LossSizes, EqualTheReference) {
  const Head h = GetParam();
  const at::Tensor labels = labels_for(h.rows, h.vocab);
  const Tensors in{drawn({h.rows, h.width}, 1), drawn({h.vocab, h.width}, 2, 0.5)};
  const auto fast = [&](const Tensors& x) {
    return linear_cross_entropy_by(x[0], weight_of(x[1]), labels, 0.1, h.most_logits);
  };
  const auto plain = [&](const Tensors& x) {
    return reference::linear_cross_entropy(x[0], x[1], labels, 0.1);
  };
  expect_close(outcome(fast, in), outcome(plain, in), 2e-5);
  const Tensors narrow{in[0].to(at::kBFloat16), in[1].to(at::kBFloat16)};
  const Tensors wide{narrow[0].to(at::kFloat), narrow[1].to(at::kFloat)};
  expect_close(outcome(fast, narrow), outcome(plain, wide), 2e-2);
  EXPECT_LE(distance(fast(in), plain(in)), 1e-5) << "without gradients";
}

INSTANTIATE_TEST_SUITE_P(Chunks, LossSizes,
                         ::testing::Values(Head{1, 3, 5, 1 << 27}, Head{30, 16, 61, 1 << 27},
                                           Head{300, 8, 40, 1}, Head{260, 24, 16, 16 * 128}));

TEST(CudaLoss, AddsTheGradientToTheBufferOfTheWeight) {
  const at::Tensor labels = labels_for(150, 21);
  const Tensors in{drawn({150, 8}, 1), drawn({21, 8}, 2)};
  const at::Tensor grad = at::zeros({21, 8}, at::kFloat) + 1.0, hidden = leaf(in[0]),
                   weight = leaf(in[1]);
  const at::Tensor loss =
      linear_cross_entropy_by(hidden, {{weight}, weight.detach(), grad}, labels, 0.5, 21 * 128);
  torch::autograd::backward({loss}, {});
  const at::Tensor a = leaf(in[0]), b = leaf(in[1]);
  torch::autograd::backward({reference::linear_cross_entropy(a, b, labels, 0.5)}, {});
  EXPECT_LE(distance(hidden.grad(), a.grad()), 1e-5);
  EXPECT_LE(distance(grad - 1.0, b.grad()), 1e-5);
  EXPECT_FALSE(weight.grad().defined());
}

TEST(CudaLoss, ChunksAreAlikeAndWholeTiles) {
  EXPECT_EQ(chunk_rows(4096, 8192, 1 << 27), 4096);
  EXPECT_EQ(chunk_rows(16384, 50304, 1 << 27), 2432);  // 7 chunks of up to 2,560
  EXPECT_EQ(chunk_rows(1000, 50304, 1), 128);
  EXPECT_EQ(chunk_rows(0, 50304, 1 << 27), 1);
  for (const int64_t rows : {129, 1000, 5000, 16384}) {
    for (const int64_t vocab : {61, 8192, 50257}) {
      const int64_t share = chunk_rows(rows, vocab, 1 << 22);
      EXPECT_LE(share * vocab, std::max<int64_t>(1 << 22, 128 * vocab));
      EXPECT_TRUE(share == rows || share % 128 == 0);
    }
  }
}

struct Heads {
  int64_t batch, time, heads, kv_heads, head_dim;
};

class AttentionShapes : public ::testing::TestWithParam<Heads> {};

Positions positions_for(const Heads& h, bool rotary, bool documents) {
  Positions positions;
  if (rotary) {
    const at::Tensor angle = at::arange(2 * h.time, at::kFloat).unsqueeze(1) *
                             (at::arange(h.head_dim / 2, at::kFloat) * -0.3).exp();
    positions.cos = angle.cos();
    positions.sin = angle.sin();
  }
  if (documents)
    positions.ids = at::arange(h.time, at::kLong).remainder(3).expand({h.batch, h.time});
  return positions;
}

// Only bfloat16 takes the device's path; the plain meaning of the rounded values stands beside it.
TEST_P(AttentionShapes, EqualTheReference) {
  const Heads h = GetParam();
  const AttentionShape shape{h.heads, h.kv_heads, h.head_dim};
  const at::Tensor qkv =
      drawn({h.batch, h.time, (h.heads + 2 * h.kv_heads) * h.head_dim}, 1).to(at::kBFloat16);
  for (const bool rotary : {false, true}) {
    for (const bool documents : {false, true}) {
      const Positions positions = positions_for(h, rotary, documents);
      const Outcome expected =
          outcome([&](const Tensors& x) { return reference::attention(x[0], shape, positions); },
                  {qkv.to(at::kFloat)});
      const auto fast = [&](const Tensors& x) { return cuda::attention(x[0], shape, positions); };
      const at::Tensor before = qkv.clone();
      expect_close(outcome(fast, {qkv}), expected, 2e-2);
      EXPECT_TRUE(qkv.equal(before)) << "a leaf keeps its values";
      // In the middle of a model qkv is turned in place.
      expect_close(
          outcome([&](const Tensors& x) { return cuda::attention(x[0] * 1.0, shape, positions); },
                  {qkv}),
          expected, 2e-2);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, AttentionShapes,
                         ::testing::Values(Heads{1, 1, 1, 1, 8}, Heads{2, 7, 4, 2, 16},
                                           Heads{3, 5, 6, 1, 24}, Heads{1, 33, 2, 2, 64}));

TEST(CudaAttention, GivenDocumentStartsAreUsed) {
  const Heads h{2, 6, 2, 1, 8};
  Positions positions = positions_for(h, true, true);
  const at::Tensor qkv = drawn({2, 6, 4 * 8}, 1).to(at::kBFloat16);
  const at::Tensor found = cuda::attention(qkv.clone(), {2, 1, 8}, positions);
  positions.document_starts = at::arange(0, 13, 3, at::kInt);
  positions.longest_document = 3;
  EXPECT_TRUE(found.equal(cuda::attention(qkv.clone(), {2, 1, 8}, positions)));
}

TEST(CudaAttention, Float32IsThePlainMeaning) {
  const Heads h{2, 6, 2, 1, 8};
  const Positions positions = positions_for(h, true, false);
  const at::Tensor qkv = drawn({2, 6, 4 * 8}, 1);
  EXPECT_TRUE(cuda::attention(qkv, {2, 1, 8}, positions)
                  .equal(reference::attention(qkv, {2, 1, 8}, positions)));
}

TEST(DeviceOps, AreAskedOnlyForTensorsOfTheDevice) {
  const at::Tensor x = at::zeros({2}, at::kFloat);
  EXPECT_EQ(device_ops(x), nullptr);
  const AsDevice device;
  ASSERT_NE(device_ops(x), nullptr);
  EXPECT_NE(device_ops(x.to(at::kBFloat16)), nullptr);
  EXPECT_NE(device_ops(x.to(at::kLong)), nullptr);
  EXPECT_EQ(device_ops(x.to(at::kDouble)), nullptr);
  const ReferenceMode plain;
  EXPECT_EQ(device_ops(x), nullptr);
}

}  // namespace
}  // namespace omnima::ops::cuda

// The norm of query and key heads against the norm of rows, and what it refuses.
#include "omnima/ops/head_norm.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>

#include "omnima/ops/reference.h"
#include "ops_fixture.h"

namespace omnima::ops {
namespace {

constexpr double kEps = 1e-5;

at::Tensor by_hand(const at::Tensor& qkv, const AttentionShape& s, const at::Tensor& q,
                   const at::Tensor& k) {
  const auto heads = [&](int64_t first, int64_t count) {
    auto sizes = qkv.sizes().vec();
    sizes.back() = count;
    sizes.push_back(s.head_dim);
    return qkv.narrow(-1, first * s.head_dim, count * s.head_dim).reshape(sizes);
  };
  return at::cat({reference::rms_norm(heads(0, s.heads), q, kEps).flatten(-2),
                  reference::rms_norm(heads(s.heads, s.kv_heads), k, kEps).flatten(-2),
                  heads(s.heads + s.kv_heads, s.kv_heads).flatten(-2)},
                 -1);
}

class HeadNorm : public ::testing::TestWithParam<AttentionShape> {};

TEST_P(HeadNorm, EqualsTheNormOfEveryHead) {
  const AttentionShape& s = GetParam();
  for (const int64_t time : {1, 9, 700}) {
    expect_reference(
        [&](const Tensors& x) {
          return head_norm(x[0], s, {weight_of(x[1]), {}, kEps}, {weight_of(x[2]), {}, kEps});
        },
        [&](const Tensors& x) { return by_hand(x[0], s, x[1], x[2]); },
        {drawn({2, time, (s.heads + 2 * s.kv_heads) * s.head_dim}, 1), drawn({s.head_dim}, 2),
         drawn({s.head_dim}, 3)});
  }
}

INSTANTIATE_TEST_SUITE_P(OddSizes, HeadNorm,
                         ::testing::Values(AttentionShape{1, 1, 2}, AttentionShape{4, 2, 8},
                                           AttentionShape{3, 1, 20}, AttentionShape{3, 3, 64}));

TEST(HeadNorm, RunsByPartsWhereItHasNoKernel) {
  const AttentionShape s{4, 2, 8};
  const at::Tensor qkv = drawn({2, 5, 64}, 1), q = drawn({8}, 2), k = drawn({8}, 3);
  const auto run = [&] {
    return head_norm(qkv, s, {weight_of(q), {}, kEps}, {weight_of(k), {}, kEps});
  };
  const at::Tensor fast = run();
  const ReferenceMode plain;
  EXPECT_LE(distance(fast, run()), 1e-5);
}

TEST(HeadNorm, AddsToGradientBuffersWhereThereAre) {
  const AttentionShape s{2, 1, 4};
  const at::Tensor q = leaf(drawn({4}, 2)), k = leaf(drawn({4}, 3));
  const at::Tensor qkv = drawn({3, 5, 16}, 1);
  Weight direct_q = weight_of(q), direct_k = weight_of(k);
  direct_q.grad = at::zeros({4}, at::kFloat);
  direct_k.grad = at::zeros({4}, at::kFloat);
  const auto run = [&](const Weight& a, const Weight& b) {
    torch::autograd::backward({head_norm(leaf(qkv), s, {a, {}, kEps}, {b, {}, kEps}).sum()}, {});
  };
  run(weight_of(q), weight_of(k));
  run(direct_q, direct_k);
  EXPECT_LE(distance(direct_q.grad, q.grad()), 1e-6);
  EXPECT_LE(distance(direct_k.grad, k.grad()), 1e-6);
}

TEST(HeadNorm, SaysWhatWasExpected) {
  const AttentionShape s{4, 2, 8};
  const NormWeight fits{weight_of(at::zeros({8}, at::kFloat)), {}, kEps};
  const NormWeight longer{weight_of(at::zeros({9}, at::kFloat)), {}, kEps};
  const at::Tensor qkv = at::zeros({2, 5, 64}, at::kFloat);
  const auto message = [&](const at::Tensor& x, const NormWeight& q, const NormWeight& k) {
    return message_of([&] { head_norm(x, s, q, k); });
  };
  EXPECT_EQ(message(qkv, fits, fits), "");
  EXPECT_TRUE(holds(message(qkv.narrow(2, 0, 60), fits, fits), "[..., 64]"));
  EXPECT_TRUE(holds(message(qkv, fits, longer), "weights of 8 elements"));
}

}  // namespace
}  // namespace omnima::ops

// The end of a step: the norm, the verdict, and AdamW against the CPU's kernel.
#include "omnima/kernels/cuda/adamw.h"

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include "cuda_fixture.h"
#include "omnima/kernels/cpu/adamw.h"

namespace omnima::kernels::cuda {
namespace {

StepConstants constants() {
  return {1e-2f, 0.9f, 0.95f, 1e-8f, 0.1f, 1 - 0.9f * 0.9f, std::sqrt(1 - 0.95f * 0.95f),
          1.0f,  0.0f};
}

class FlatSize : public ::testing::TestWithParam<std::int64_t> {};

TEST_P(FlatSize, SumOfSquares) {
  const at::Tensor x = drawn({GetParam()}, 1);
  const Tensors got = in_both_orders([&] {
    const at::Tensor partial = at::full({norm_sums(x.numel())}, NAN, at::kFloat);
    sum_of_squares(data<float>(x), x.numel(), data<float>(partial), nullptr);
    return Tensors{partial};
  });
  const double expected = x.to(at::kDouble).square().sum().item<double>();
  EXPECT_NEAR(got[0].to(at::kDouble).sum().item<double>(), expected, 1e-5 * expected);
}

TEST(NormSums, FollowFromTheSizeAlone) {
  EXPECT_EQ(norm_sums(1), 1);
  EXPECT_EQ(norm_sums(16385), 2);
  EXPECT_EQ(norm_sums(1'000'000'000), 1024);
}

TEST_P(FlatSize, UpdateEqualsTheCpuKernel) {
  const std::int64_t count = GetParam(), decayed = count / 2;
  const at::Tensor weights = drawn({count}, 1), grads = drawn({count}, 2),
                   m = drawn({count}, 3, 0.1), v = drawn({count}, 4).square();
  const StepConstants c = constants();
  const Verdict verdict{1.0f, 1.0f, 0.5f, 0};
  const Tensors got = in_both_orders([&] {
    const Tensors own{weights.clone(), m.clone(), v.clone(), at::zeros({count}, at::kBFloat16)};
    adamw({data<float>(own[0]), data<float>(grads), data<float>(own[1]), data<float>(own[2]),
           data<bfloat16>(own[3]), count, decayed},
          &c, &verdict, nullptr);
    return own;
  });
  const Tensors cpu{weights.clone(), m.clone(), v.clone(), at::zeros({count}, at::kBFloat16)};
  for (const bool matrices : {true, false}) {
    const std::int64_t first = matrices ? 0 : decayed, last = matrices ? decayed : count;
    kernels::optimizer_kernels(Level::kGeneric)
        .adamw(data<float>(cpu[0]) + first, data<float>(grads) + first, data<float>(cpu[1]) + first,
               data<float>(cpu[2]) + first, data<bfloat16>(cpu[3]) + first, last - first,
               {c.lr, c.beta1, c.beta2, c.eps, matrices ? c.weight_decay : 0.0f, c.correction1,
                c.correction2, verdict.grad_scale});
  }
  for (int i = 0; i < 3; ++i) EXPECT_LE(distance(got[i], cpu[i]), 1e-6) << "buffer " << i;
  EXPECT_TRUE(same_bits(got[3], got[0].to(at::kBFloat16))) << "the shadow is the rounded weight";
}

INSTANTIATE_TEST_SUITE_P(Sizes, FlatSize, ::testing::Values(1, 3, 4, 1021, 4096, 70003));

TEST(Adamw, AStepThatDoesNotCountChangesNothing) {
  const at::Tensor weights = drawn({9}, 1), grads = drawn({9}, 2), m = drawn({9}, 3),
                   v = drawn({9}, 4).square();
  const Tensors own{weights.clone(), m.clone(), v.clone()};
  const StepConstants c = constants();
  const Verdict verdict{NAN, 1.0f, 1.0f, 1};
  adamw({data<float>(own[0]), data<float>(grads), data<float>(own[1]), data<float>(own[2]), nullptr,
         9, 9},
        &c, &verdict, nullptr);
  EXPECT_TRUE(same_bits(own[0], weights) && same_bits(own[1], m) && same_bits(own[2], v));
}

Verdict judged(float first_part, float loss, const StepConstants& c) {
  at::Tensor partial = at::zeros({77}, at::kFloat);
  partial.data_ptr<float>()[0] = first_part;
  partial.data_ptr<float>()[76] = 7.0f;
  Verdict verdict{};
  judge(data<float>(partial), 77, &loss, &c, &verdict, nullptr);
  return verdict;
}

TEST(Judge, RescalesAndClips) {
  StepConstants c = constants();
  const Verdict plain = judged(9.0f, 3.0f, c);
  EXPECT_EQ(plain.grad_norm, 4.0f);
  EXPECT_EQ(plain.loss, 3.0f);
  EXPECT_EQ(plain.grad_scale, 1.0f);
  EXPECT_EQ(plain.keep_weights, 0);
  c.rescale = 2.0f;
  c.clip_norm = 1.0f;
  const Verdict clipped = judged(9.0f, 3.0f, c);
  EXPECT_EQ(clipped.grad_norm, 8.0f) << "as if the gradients had been rescaled";
  EXPECT_EQ(clipped.loss, 6.0f);
  EXPECT_EQ(clipped.grad_scale, 0.25f);
  c.clip_norm = 100.0f;
  EXPECT_EQ(judged(9.0f, 3.0f, c).grad_scale, 2.0f) << "a small norm is not raised";
}

TEST(Judge, KeepsTheWeightsWhereSomethingIsNotFinite) {
  StepConstants c = constants();
  EXPECT_EQ(judged(9.0f, NAN, c).keep_weights, 1);
  EXPECT_EQ(judged(9.0f, INFINITY, c).keep_weights, 1);
  EXPECT_EQ(judged(INFINITY, 3.0f, c).keep_weights, 1);
  EXPECT_EQ(judged(NAN, 3.0f, c).keep_weights, 1);
}

}  // namespace
}  // namespace omnima::kernels::cuda

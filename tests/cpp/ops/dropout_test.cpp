// Dropout draws its mask from a seed alone.
#include "omnima/ops/dropout.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/where.h>

#include "ops_fixture.h"

namespace omnima::ops {
namespace {

at::Tensor drop(const at::Tensor& x, double p, std::uint64_t seed) {
  return omnima::ops::dropout(x, p, seed);  // at::dropout would be found as well
}

TEST(Dropout, KeepsTheExpectedShareAndScalesIt) {
  const at::Tensor y = drop(at::full({100, 1000}, 3.0, at::kFloat), 0.25, 7);
  const at::Tensor kept = y.ne(0);
  EXPECT_NEAR(kept.to(at::kDouble).mean().item<double>(), 0.75, 0.005);
  EXPECT_LE(distance(y, kept.to(at::kFloat) * 4.0), 1e-6);
}

TEST(Dropout, IsAFunctionOfItsSeed) {
  const at::Tensor x = drawn({64, 64}, 1);
  EXPECT_TRUE(at::equal(drop(x, 0.5, 3), drop(x, 0.5, 3)));
  EXPECT_FALSE(at::equal(drop(x, 0.5, 3), drop(x, 0.5, 4)));
  EXPECT_TRUE(at::equal(drop(x, 0.0, 3), x));
}

TEST(Dropout, LeavesTheSharedGeneratorAlone) {
  const at::Tensor x = drawn({8, 8}, 1);
  auto draw = [] { return at::empty({5}, at::kFloat).normal_(); };
  at::Generator shared = at::detail::getDefaultCPUGenerator();
  shared.set_current_seed(11);
  const at::Tensor expected = draw();
  shared.set_current_seed(11);
  drop(x, 0.5, 3);
  EXPECT_TRUE(at::equal(draw(), expected));
}

TEST(Dropout, GradientPassesWhereTheValueDid) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor x = leaf(at::full({50}, 1.0, at::kFloat).to(type));
    const at::Tensor y = drop(x, 0.4, 5);
    torch::autograd::backward({y.sum()}, {});
    EXPECT_EQ(y.scalar_type(), type);
    EXPECT_TRUE(at::equal(x.grad(), y.detach()));
  }
}

}  // namespace
}  // namespace omnima::ops

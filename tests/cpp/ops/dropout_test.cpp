// Dropout draws its mask from a seed alone.
#include "omnima/ops/dropout.h"

#include <ATen/Parallel.h>
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

// Neighbours, rows, blocks and seeds: the masks of any two agree as often as chance has it.
TEST(Dropout, MasksHaveNoVisibleRelation) {
  const double p = 0.3, expected = p * p + (1 - p) * (1 - p);
  const int64_t rows = 64, cols = 4096;
  const auto mask = [&](std::uint64_t seed) {
    return drop(at::full({rows, cols}, 1.0, at::kFloat), p, seed).ne(0);
  };
  const at::Tensor first = mask(1);
  const auto agree = [&](const at::Tensor& a, const at::Tensor& b) {
    return a.eq(b).to(at::kDouble).mean().item<double>();
  };
  const double noise = 5 * std::sqrt(expected * (1 - expected) / (rows * cols / 2));
  for (const std::uint64_t seed : {2ULL, 3ULL, 1ULL << 32, 1ULL << 63}) {
    EXPECT_NEAR(agree(first, mask(seed)), expected, noise) << seed;
  }
  for (const int64_t step : {1, 2, 3, 16, 256}) {
    EXPECT_NEAR(agree(first.narrow(1, 0, cols - step), first.narrow(1, step, cols - step)),
                expected, noise)
        << step;
  }
  EXPECT_NEAR(agree(first.narrow(0, 0, 32), first.narrow(0, 32, 32)), expected, noise);
  const at::Tensor shares = first.to(at::kDouble).mean(1);
  const double spread = std::sqrt(p * (1 - p) / cols);
  EXPECT_LT((shares - (1 - p)).abs().max().item<double>(), 5 * spread);
}

TEST(Dropout, IsTheSameOnAnyNumberOfThreads) {
  const at::Tensor x = drawn({130, 1000}, 1);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor one = drop(x, 0.2, 9);
  at::set_num_threads(2);
  EXPECT_TRUE(at::equal(drop(x, 0.2, 9), one));
  at::set_num_threads(threads);
}

TEST(Dropout, ShowsWhatIsNotFinite) {
  const at::Tensor y = drop(at::full({1000}, NAN, at::kFloat), 0.5, 1);
  EXPECT_TRUE(y.isnan().all().item<bool>());
}

TEST(Dropout, RefusesAShareOfOne) {
  EXPECT_TRUE(holds(message_of([] { drop(at::full({3}, 1.0), 1.0, 1); }), "below 1"));
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

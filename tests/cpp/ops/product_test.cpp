// Products against ATen in float64, over odd shapes, views and both types.
#include "omnima/ops/product.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

namespace omnima::ops {
namespace {

struct Shape {
  int64_t m, n, k;
};

at::Tensor random(int64_t rows, int64_t cols, at::ScalarType type, bool transposed) {
  const at::Tensor x =
      at::randn(transposed ? std::vector<int64_t>{cols, rows} : std::vector<int64_t>{rows, cols});
  return transposed ? x.to(type).t() : x.to(type);
}

double tolerance(const Shape& s, at::ScalarType type) {
  return (type == at::kFloat ? 2e-6 : 8e-3) * std::sqrt(static_cast<double>(s.k) + 1) * 4;
}

class ProductOf : public testing::TestWithParam<std::tuple<at::ScalarType, bool, bool>> {};

TEST_P(ProductOf, IsTheProductOfAnyShape) {
  const auto [type, left_transposed, right_transposed] = GetParam();
  at::manual_seed(1);
  for (const auto& s : std::vector<Shape>{{1, 1, 1},
                                          {1, 33, 7},
                                          {13, 31, 17},
                                          {12, 32, 64},
                                          {97, 1, 129},
                                          {25, 96, 1025},
                                          {11, 257, 2048},
                                          {130, 65, 31},
                                          {300, 40, 3000},
                                          {7, 9000, 600}}) {
    const at::Tensor a = random(s.m, s.k, type, left_transposed);
    const at::Tensor b = random(s.k, s.n, type, right_transposed);
    const at::Tensor expected = at::mm(a.to(at::kDouble), b.to(at::kDouble));
    const double close = tolerance(s, type);
    EXPECT_LT((product(a, b).to(at::kDouble) - expected).abs().max().item<double>(), close)
        << s.m << " " << s.n << " " << s.k;
    const at::Tensor sum = at::randn({s.m, s.n}), before = sum.clone();
    add_product(sum, a, b);
    EXPECT_LT((sum.to(at::kDouble) - before - expected).abs().max().item<double>(),
              tolerance(s, at::kFloat))
        << s.m << " " << s.n << " " << s.k;
  }
}

TEST_P(ProductOf, TakesPartsOfLargerMatrices) {
  const auto [type, left_transposed, right_transposed] = GetParam();
  const at::Tensor a = random(40, 50, type, left_transposed).narrow(0, 3, 29).narrow(1, 5, 37);
  const at::Tensor b = random(60, 90, type, right_transposed).narrow(0, 7, 37).narrow(1, 1, 71);
  const at::Tensor expected = at::mm(a.to(at::kDouble), b.to(at::kDouble));
  EXPECT_LT((product(a, b).to(at::kDouble) - expected).abs().max().item<double>(),
            tolerance({29, 71, 37}, type));
}

INSTANTIATE_TEST_SUITE_P(Types, ProductOf,
                         testing::Combine(testing::Values(at::kFloat, at::kBFloat16),
                                          testing::Bool(), testing::Bool()));

TEST(ProductOf, RoundingOfLongSumsDoesNotGrowAsOneSumsWould) {
  at::manual_seed(3);
  const at::Tensor a = at::randn({24, 1024}), b = at::randn({1024, 64});
  const at::Tensor expected = at::mm(a.to(at::kDouble), b.to(at::kDouble));
  at::Tensor one_by_one = at::zeros({24, 64});
  for (int64_t k = 0; k < 1024; ++k) one_by_one += at::outer(a.select(1, k), b.select(0, k));
  const auto error = [&](const at::Tensor& x) {
    return (x.to(at::kDouble) - expected).square().mean().sqrt().item<double>();
  };
  EXPECT_LT(error(product(a, b)), 0.75 * error(one_by_one));
}

TEST(ProductOf, ASymmetricOneIsComputedByHalf) {
  at::manual_seed(2);
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    for (const auto& s : std::vector<Shape>{
             {1, 1, 1}, {2, 2, 9}, {13, 13, 17}, {33, 33, 64}, {96, 96, 1025}, {385, 385, 250}}) {
      for (const bool transposed : {false, true}) {
        const at::Tensor x = random(s.m, s.k, type, transposed);
        const at::Tensor found = symmetric_product(x, x.t(), type);
        EXPECT_TRUE(found.equal(found.t())) << s.m << " " << s.k;
        EXPECT_TRUE(found.tril().equal(product(x, x.t()).tril())) << s.m << " " << s.k;
        const at::Tensor sums = symmetric_product(x, x.t(), at::kFloat);
        EXPECT_TRUE(sums.to(type).equal(found)) << s.m << " " << s.k;
      }
    }
    EXPECT_ANY_THROW(symmetric_product(at::ones({3, 4}, type), at::ones({4, 5}, type), type));
  }
  const at::Tensor x = at::ones({2, 2});
  EXPECT_ANY_THROW(symmetric_product(x, x, at::kDouble));
}

TEST(ProductOf, APackedFactorGivesTheSameBits) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor packed = at::empty({packed_size(at::empty({2100, 83}, type))}, at::kByte);
    for (const bool transposed : {false, true}) {
      const at::Tensor a = random(45, 2100, type, false);
      const at::Tensor b = random(2100, 83, type, transposed), out = at::empty({45, 83}, type);
      pack_right(packed, b);
      product_out_packed(out, a, b, packed);
      EXPECT_TRUE(out.equal(product(a, b)));
    }
    EXPECT_ANY_THROW(pack_right(at::empty({64}, at::kByte), at::ones({7, 5}, type)));
  }
}

TEST(ProductOf, Float32OfBfloat16WithRowsThatLieApart) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    for (const int64_t depth : {0, 37, 1100}) {
      const at::Tensor a = random(45, depth, type, false), b = random(depth, 70, type, true);
      const at::Tensor memory = at::full({45, 100}, 7.0), out = memory.narrow(1, 20, 70);
      float_product_out(out, a, b);
      const at::Tensor expected = at::mm(a.to(at::kDouble), b.to(at::kDouble));
      EXPECT_LT((out.to(at::kDouble) - expected).abs().max().item<double>(),
                tolerance({45, 70, depth}, at::kFloat));
      EXPECT_TRUE(memory.narrow(1, 0, 20).eq(7).all().item<bool>());
      EXPECT_TRUE(memory.narrow(1, 90, 10).eq(7).all().item<bool>());
      const at::Tensor stored = at::full({45, 100}, 7.0, type), part = stored.narrow(1, 20, 70);
      product_out(part, a, b);
      EXPECT_TRUE(part.equal(product(a, b)));
      EXPECT_TRUE(stored.narrow(1, 90, 10).eq(7).all().item<bool>());
    }
  }
}

TEST(ProductOf, AnEmptyDepthIsZero) {
  EXPECT_TRUE(product(at::empty({3, 0}), at::empty({0, 5})).equal(at::zeros({3, 5})));
  EXPECT_EQ(product(at::empty({0, 4}), at::empty({4, 5})).sizes(), (std::vector<int64_t>{0, 5}));
}

TEST(ProductOf, KeepsNanAndInfinityWhereTheyBelong) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor a = at::ones({30, 33}, type), b = at::ones({33, 70}, type);
    a[4][32] = NAN;
    a[7][0] = INFINITY;
    const at::Tensor c = product(a, b);
    EXPECT_TRUE(c[4].isnan().all().item<bool>());
    EXPECT_TRUE(c[7].isinf().all().item<bool>());
    const at::Tensor rest = at::cat({c.narrow(0, 0, 4), c.narrow(0, 5, 2), c.narrow(0, 8, 22)});
    EXPECT_TRUE(rest.eq(33).all().item<bool>());
  }
}

TEST(ProductOf, IsTheSameOnAnyNumberOfThreads) {
  const at::Tensor a = at::randn({301, 513}), b = at::randn({513, 259});
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor one = product(a, b);
  at::set_num_threads(2);
  EXPECT_TRUE(product(a, b).equal(one));
  at::set_num_threads(threads);
}

TEST(ProductOf, RefusesWhatDoesNotFit) {
  EXPECT_ANY_THROW(product(at::ones({2, 3}), at::ones({4, 5})));
  EXPECT_ANY_THROW(product(at::ones({2, 3}), at::ones({3, 5}, at::kBFloat16)));
  EXPECT_ANY_THROW(product(at::ones({2, 3}, at::kDouble), at::ones({3, 5}, at::kDouble)));
}

}  // namespace
}  // namespace omnima::ops

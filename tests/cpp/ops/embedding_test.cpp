// Rows of a table by id, and their gradient where an id comes more than once.
#include "omnima/ops/embedding.h"

#include <ATen/ops/embedding.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include "ops_fixture.h"

namespace omnima::ops {
namespace {

at::Tensor ids() { return at::tensor({4, 0, 4, 2, 4, 1}, at::kLong).view({2, 3}); }

// Wide enough that several threads divide the columns.
class EmbeddingOperator : public ::testing::TestWithParam<int64_t> {};

TEST_P(EmbeddingOperator, EqualsAten) {
  const Tensors in{drawn({6, GetParam()}, 1)};
  expect_close(outcome([](const Tensors& x) { return embedding(ids(), weight_of(x[0])); }, in),
               outcome([](const Tensors& x) { return at::embedding(x[0], ids()); }, in), 1e-6);
}

TEST_P(EmbeddingOperator, AddsItsGradientToTheBuffer) {
  const Tensors in{drawn({6, GetParam()}, 1)};
  const Outcome expected = outcome([](const Tensors& x) { return at::embedding(x[0], ids()); }, in);
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor grad = at::zeros({6, GetParam()}, at::kFloat) - 1.0;
    const Outcome direct = outcome(
        [&](const Tensors& x) { return embedding(ids(), {{x[0]}, x[0].detach().to(type), grad}); },
        in);
    EXPECT_EQ(direct.output.scalar_type(), type);
    EXPECT_FALSE(direct.gradients[0].defined());
    const double tolerance = type == at::kFloat ? 1e-6 : 1e-2;
    EXPECT_LE(distance(direct.output, expected.output), tolerance);
    EXPECT_LE(distance(grad + 1.0, expected.gradients[0]), tolerance);
  }
}

INSTANTIATE_TEST_SUITE_P(OddSizes, EmbeddingOperator, ::testing::Values(1, 5, 200));

TEST(EmbeddingOperatorSlopes, GradientsAreSlopes) {
  expect_slopes([](const Tensors& x) { return embedding(ids(), weight_of(x[0])); },
                {drawn({6, 3}, 2)});
}

TEST(EmbeddingOperatorErrors, IdsMustBeWhole) {
  EXPECT_TRUE(holds(message_of([] { embedding(ids().to(at::kInt), weight_of(drawn({6, 3}, 2))); }),
                    "int64 ids, not Int"));
}

}  // namespace
}  // namespace omnima::ops

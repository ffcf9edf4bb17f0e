// SwiGLU and GELU against their plain meaning, and their gradients against slopes.
#include "omnima/ops/activation.h"

#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include "omnima/ops/reference.h"
#include "ops_fixture.h"

namespace omnima::ops {
namespace {

class Activation : public ::testing::TestWithParam<int64_t> {
 protected:
  int64_t width() const { return GetParam(); }
};

TEST_P(Activation, EqualsTheReference) {
  expect_reference([](const Tensors& x) { return swiglu(x[0]); },
                   [](const Tensors& x) { return reference::swiglu(x[0]); },
                   {drawn({2, 3, 2 * width()}, 1, 2.0)});
  for (const bool by_tanh : {false, true}) {
    expect_reference([&](const Tensors& x) { return gelu(x[0], by_tanh); },
                     [&](const Tensors& x) { return reference::gelu(x[0], by_tanh); },
                     {drawn({3, width()}, 2, 2.0)});
  }
}

TEST_P(Activation, ReadsInputsThatAreNotContiguous) {
  expect_reference([](const Tensors& x) { return swiglu(x[0].transpose(0, 1)); },
                   [](const Tensors& x) { return reference::swiglu(x[0].transpose(0, 1)); },
                   {drawn({2 * width(), 5}, 3)});
  expect_reference([](const Tensors& x) { return gelu(x[0].transpose(0, 1), true); },
                   [](const Tensors& x) { return reference::gelu(x[0].transpose(0, 1), true); },
                   {drawn({width(), 5}, 4)});
}

INSTANTIATE_TEST_SUITE_P(OddSizes, Activation, ::testing::Values(1, 5, 17, 64, 333));

// Enough rows that several threads share them.
TEST(ActivationThreads, AllRowsAreComputed) {
  expect_reference([](const Tensors& x) { return swiglu(x[0]); },
                   [](const Tensors& x) { return reference::swiglu(x[0]); },
                   {drawn({301, 514}, 5)});
  expect_reference([](const Tensors& x) { return gelu(x[0], false); },
                   [](const Tensors& x) { return reference::gelu(x[0], false); },
                   {drawn({301, 257}, 6)});
}

TEST(ActivationSlopes, GradientsAreSlopes) {
  expect_slopes([](const Tensors& x) { return swiglu(x[0]); }, {drawn({2, 10}, 7, 2.0)});
  for (const bool by_tanh : {false, true}) {
    expect_slopes([&](const Tensors& x) { return gelu(x[0], by_tanh); }, {drawn({13}, 8, 2.0)});
  }
}

TEST(ActivationReference, RunsWhenAskedFor) {
  const at::Tensor x = drawn({3, 8}, 9);
  const ReferenceMode plain;
  // The fast versions know no double: only the plain ones answer.
  EXPECT_LE(distance(swiglu(x.to(at::kDouble)), reference::swiglu(x)), 1e-6);
  EXPECT_LE(distance(gelu(x.to(at::kDouble), true), reference::gelu(x, true)), 1e-6);
}

TEST(ActivationErrors, NameWhatWasExpected) {
  EXPECT_TRUE(holds(message_of([] { swiglu(at::zeros({2, 5}, at::kFloat)); }), "[2, 5]"));
  EXPECT_TRUE(holds(message_of([] { swiglu(at::zeros({2, 0}, at::kFloat)); }), "even"));
  EXPECT_TRUE(holds(message_of([] { swiglu(at::zeros({2, 4}, at::kDouble)); }), "not Double"));
  EXPECT_TRUE(holds(message_of([] { gelu(at::zeros({4}, at::kDouble), true); }),
                    "gelu takes float32 or bfloat16, not Double"));
}

TEST(Geglu, EqualsTheReference) {
  for (const bool by_tanh : {false, true}) {
    for (const int64_t width : {1, 7, 64, 100}) {
      expect_reference([&](const Tensors& x) { return geglu(x[0], by_tanh); },
                       [&](const Tensors& x) { return reference::geglu(x[0], by_tanh); },
                       {drawn({3, 5, 2 * width}, 1, 2.0)});
    }
    expect_slopes([&](const Tensors& x) { return geglu(x[0], by_tanh); }, {drawn({2, 10}, 7, 2.0)});
  }
  EXPECT_TRUE(holds(message_of([] { geglu(at::zeros({2, 5}, at::kFloat), false); }), "[2, 5]"));
}

TEST(SquaredRelu, EqualsTheReferenceAndKeepsNaN) {
  expect_reference([](const Tensors& x) { return relu2(x[0]); },
                   [](const Tensors& x) { return reference::relu2(x[0]); },
                   {drawn({3, 5, 33}, 1, 2.0)});
  EXPECT_TRUE(relu2(at::full({40}, NAN, at::kFloat)).isnan().all().item<bool>());
}

TEST(SoftCap, EqualsTheReferenceAndStaysBelowTheCap) {
  for (const double cap : {0.5, 3.0, 50.0}) {
    expect_reference([&](const Tensors& x) { return soft_cap(x[0], cap); },
                     [&](const Tensors& x) { return reference::soft_cap(x[0], cap); },
                     {drawn({3, 5, 33}, 1, 4.0)});
    const at::Tensor far = at::full({20}, 1e30, at::kFloat);
    EXPECT_LE(soft_cap(far, cap).max().item<double>(), cap);
    EXPECT_GE(soft_cap(-far, cap).min().item<double>(), -cap);
  }
  const at::Tensor x = drawn({4}, 1);
  EXPECT_TRUE(soft_cap(x, 0).is_same(x));
  EXPECT_TRUE(holds(message_of([&] { soft_cap(x, -1); }), "at least 0, not -1"));
}

}  // namespace
}  // namespace omnima::ops

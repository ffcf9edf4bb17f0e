// The norm kernels with a residual, unaligned rows and many parts; the plain cases are tested
// through the operators (tests/cpp/ops/cuda).
#include "omnima/kernels/cuda/norm.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include "cuda_fixture.h"

namespace omnima::kernels::cuda {
namespace {

constexpr double kEps = 1e-5;

struct Case {
  std::int64_t rows, cols;
  bool centred, residual;
  std::int64_t shift;  // elements away from an aligned address
};

struct Expected {
  at::Tensor sum, y, dx, dweight, dbias;
};

// The same in doubles. dsum is the gradient that reaches the sum past the norm.
Expected expected(const at::Tensor& sum, const at::Tensor& weight, const at::Tensor& bias,
                  const at::Tensor& dy, const at::Tensor& dsum, bool centred) {
  const at::Tensor x = sum.to(at::kDouble), w = weight.to(at::kDouble), d = dy.to(at::kDouble);
  const at::Tensor middle = centred ? x - x.mean(-1, true) : x;
  const at::Tensor rstd = (middle.square().mean(-1, true) + kEps).rsqrt();
  const at::Tensor normal = middle * rstd, g = d * w;
  at::Tensor dx = g - normal * (g * normal).mean(-1, true);
  if (centred) dx = dx - g.mean(-1, true);
  dx = dx * rstd;
  if (dsum.defined()) dx = dx + dsum.to(at::kDouble);
  at::Tensor y = normal * w;
  if (centred) y = y + bias.to(at::kDouble);
  return {x, y, dx, (d * normal).sum(0), d.sum(0)};
}

template <class T>
Tensors run(const Case& c, const at::Tensor& x, const at::Tensor& other, const at::Tensor& weight,
            const at::Tensor& bias, const at::Tensor& dy) {
  const NormShape shape{c.rows, c.cols, static_cast<float>(kEps)};
  const at::Tensor sum = c.residual ? at::empty_like(x) : at::Tensor(), y = at::empty_like(x);
  const at::Tensor rstd = at::empty({c.rows}, at::kFloat);
  const at::Tensor mean = c.centred ? at::empty_like(rstd) : at::Tensor();
  norm_forward<T>({data<T>(x), c.residual ? data<T>(other) : nullptr, data<float>(weight),
                   c.centred ? data<float>(bias) : nullptr, data<T>(sum), data<T>(y),
                   data<float>(mean), data<float>(rstd)},
                  shape, nullptr);
  const at::Tensor dx = at::empty_like(x), dweight = at::zeros({c.cols}, at::kFloat);
  const at::Tensor dbias = c.centred ? at::zeros({c.cols}, at::kFloat) : at::Tensor();
  const at::Tensor partial = at::empty({2 * norm_parts(c.rows), c.cols}, at::kFloat);
  norm_backward<T>({data<T>(c.residual ? sum : x), data<float>(weight), data<float>(mean),
                    data<float>(rstd), data<T>(dy), c.residual ? data<T>(other) : nullptr,
                    data<T>(dx), data<float>(partial), data<float>(dweight), data<float>(dbias)},
                   shape, nullptr);
  return {y, dx, dweight, dbias, sum};
}

template <class T>
void check(const Case& c, at::ScalarType type, double tolerance) {
  const auto values = [&](std::uint64_t seed) {
    return moved((drawn({c.rows, c.cols}, seed) + 0.5).to(type), c.shift);
  };
  const at::Tensor x = values(1), other = values(2), dy = values(3);
  const at::Tensor weight = moved(drawn({c.cols}, 4) + 1.0, c.shift), bias = drawn({c.cols}, 5);
  const at::Tensor sum = c.residual ? (x + other) : x;
  const Expected e = expected(sum, weight, bias, dy, c.residual ? other : at::Tensor(), c.centred);
  const Tensors got = in_both_orders([&] { return run<T>(c, x, other, weight, bias, dy); });
  EXPECT_LE(distance(got[0], e.y), tolerance);
  EXPECT_LE(distance(got[1], e.dx), tolerance);
  EXPECT_LE(distance(got[2], e.dweight), 1e-4);
  EXPECT_LE(c.centred ? distance(got[3], e.dbias) : 0, 1e-4);
  EXPECT_LE(c.residual ? distance(got[4], e.sum) : 0, tolerance);
}

class NormKernel : public ::testing::TestWithParam<Case> {};

TEST_P(NormKernel, EqualsItsMeaning) {
  check<float>(GetParam(), at::kFloat, 2e-5);
  check<bfloat16>(GetParam(), at::kBFloat16, 1e-2);
}

INSTANTIATE_TEST_SUITE_P(Cases, NormKernel,
                         ::testing::Values(Case{1, 1, false, false, 0}, Case{5, 7, true, true, 0},
                                           Case{3, 64, false, true, 0},
                                           Case{6, 264, true, false, 0},
                                           Case{2, 1032, true, true, 0}, Case{3, 64, true, true, 1},
                                           Case{130, 24, true, false, 3},
                                           Case{257, 16, false, true, 0}));

TEST(NormParts, FollowFromTheRowsAlone) {
  EXPECT_EQ(norm_parts(0), 1);
  EXPECT_EQ(norm_parts(63), 1);
  EXPECT_EQ(norm_parts(64), 2);
  EXPECT_EQ(norm_parts(1 << 20), 256);
}

TEST(NormLaunch, NoRowsLaunchNothing) {
  const auto before = emulated_cuda::launches();
  norm_forward<float>({}, {0, 8, 1e-5f}, nullptr);
  norm_backward<float>({}, {0, 8, 1e-5f}, nullptr);
  EXPECT_EQ(emulated_cuda::launches(), before);
}

}  // namespace
}  // namespace omnima::kernels::cuda

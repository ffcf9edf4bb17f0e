// Loss and gradient of rows of logits: odd vocabularies, padded rows, ignored labels, infinities.
#include "omnima/kernels/cuda/cross_entropy.h"

#include <ATen/ops/full.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "cuda_fixture.h"

namespace omnima::kernels::cuda {
namespace {

struct Case {
  std::int64_t rows, vocab, stride;
};

constexpr float kScale = 0.25f;

template <class T>
Tensors run(const at::Tensor& logits, const at::Tensor& labels, const Case& c, bool gradient) {
  const at::Tensor own = logits.clone(), losses = at::empty({c.rows}, at::kFloat);
  cross_entropy<T>({data<T>(own), data<std::int64_t>(labels), data<float>(losses), c.rows, c.vocab,
                    c.stride, kScale, gradient},
                   nullptr);
  return {losses, own};
}

at::Tensor some_labels(const Case& c) {
  const at::Tensor labels = at::zeros({c.rows}, at::kLong);
  auto* at = labels.data_ptr<std::int64_t>();
  for (std::int64_t row = 0; row < c.rows; ++row) {
    at[row] = row % 3 == 2 ? core::kIgnoredLabel : (row * 31 + c.vocab - 1) % c.vocab;
  }
  return labels;
}

template <class T>
void check(const Case& c, at::ScalarType type, double tolerance) {
  const at::Tensor logits = drawn({c.rows, c.stride}, 7, 3.0).to(type);
  const at::Tensor labels = some_labels(c);
  const at::Tensor log_p = at::log_softmax(logits.narrow(1, 0, c.vocab).to(at::kDouble), -1);
  const at::Tensor kept = labels.ne(core::kIgnoredLabel), safe = labels.clamp_min(0).unsqueeze(1);
  const at::Tensor losses = -log_p.gather(1, safe).squeeze(1) * kept;
  const at::Tensor one_hot = at::zeros_like(log_p).scatter(1, safe, 1.0);
  const at::Tensor gradient = (log_p.exp() - one_hot) * kept.unsqueeze(1) * kScale;
  const Tensors only = in_both_orders([&] { return run<T>(logits, labels, c, false); });
  EXPECT_LE(distance(only[0], losses), 1e-5);
  EXPECT_TRUE(same_bits(only[1], logits)) << "without a gradient the logits stay";
  const Tensors both = in_both_orders([&] { return run<T>(logits, labels, c, true); });
  EXPECT_TRUE(same_bits(both[0], only[0]));
  EXPECT_LE(distance(both[1].narrow(1, 0, c.vocab), gradient), tolerance);
  const auto rest = c.stride - c.vocab;
  EXPECT_TRUE(same_bits(both[1].narrow(1, c.vocab, rest).contiguous(),
                        logits.narrow(1, c.vocab, rest).contiguous()))
      << "what lies behind a row is not touched";
}

class CrossEntropyKernel : public ::testing::TestWithParam<Case> {};

TEST_P(CrossEntropyKernel, EqualsItsMeaning) {
  check<float>(GetParam(), at::kFloat, 1e-6);
  check<bfloat16>(GetParam(), at::kBFloat16, 2e-3);
}

INSTANTIATE_TEST_SUITE_P(Cases, CrossEntropyKernel,
                         ::testing::Values(Case{1, 1, 1}, Case{4, 7, 7}, Case{4, 61, 64},
                                           Case{3, 4096, 4096}, Case{3, 5003, 5008},
                                           Case{2, 8193, 8193}));

TEST(CrossEntropyEdges, LargeInfiniteAndMissingLogits) {
  const Case c{4, 9, 16};
  const at::Tensor labels = at::zeros({4}, at::kLong);
  at::Tensor logits = at::full({4, 16}, -INFINITY, at::kFloat);
  float* at = logits.data_ptr<float>();
  at[0] = 5.0f;                       // all others masked: loss 0
  at[16] = -500.0f, at[17] = 500.0f;  // far apart
  at[32] = NAN;
  at[48] = INFINITY;
  const Tensors got = in_both_orders([&] { return run<float>(logits, labels, c, true); });
  const float* loss = got[0].const_data_ptr<float>();
  EXPECT_EQ(loss[0], 0.0f);
  EXPECT_EQ(loss[1], 1000.0f);
  EXPECT_FALSE(std::isfinite(loss[2]));
  EXPECT_FALSE(std::isfinite(loss[3]));
  EXPECT_EQ(got[1].const_data_ptr<float>()[1], 0.0f) << "a masked logit has no gradient";
}

TEST(CrossEntropyEdges, AllLogitsVeryNegative) {
  const Case c{1, 3, 3};
  const at::Tensor logits = at::full({1, 3}, -1e30, at::kFloat), labels = at::zeros({1}, at::kLong);
  const Tensors got = in_both_orders([&] { return run<float>(logits, labels, c, true); });
  EXPECT_NEAR(got[0].item<float>(), std::log(3.0), 1e-6);
}

TEST(CrossEntropyLabels, OutsideTheVocabularyIsNotANumberAndReadsNothing) {
  const Case c{2, 9, 16};
  const at::Tensor logits = at::zeros({2, 16}, at::kFloat), labels = at::full({2}, 9, at::kLong);
  labels.data_ptr<std::int64_t>()[1] = -7;
  const Tensors got = in_both_orders([&] { return run<float>(logits, labels, c, true); });
  EXPECT_TRUE(got[0].isnan().all().item<bool>());
  EXPECT_EQ(got[1].abs().max().item<float>(), 0.0f);
}

TEST(AddLosses, AddsToTheTotal) {
  const at::Tensor losses = drawn({1301}, 3);
  const Tensors got = in_both_orders([&] {
    const at::Tensor total = at::full({1}, 2.0, at::kFloat);
    add_losses(data<float>(losses), 1301, 0.5f, data<float>(total), nullptr);
    return Tensors{total};
  });
  EXPECT_NEAR(got[0].item<float>(), 2.0 + 0.5 * losses.to(at::kDouble).sum().item<double>(), 1e-4);
}

}  // namespace
}  // namespace omnima::kernels::cuda

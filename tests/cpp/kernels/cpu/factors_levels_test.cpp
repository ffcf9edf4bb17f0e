// Factors of columns and their gradient at every level, beside the plain loop.
#include <gtest/gtest.h>

#include "levels.h"
#include "omnima/kernels/cpu/factors.h"

namespace omnima::kernels {
namespace {

template <class T>
class FactorLevels : public testing::Test {};
using Formats = testing::Types<float, bfloat16>;
TYPED_TEST_SUITE(FactorLevels, Formats);

TYPED_TEST(FactorLevels, MultiplyAsThePlainLoop) {
  for (const std::int64_t count : odd_sizes()) {
    const auto x = draw<TypeParam>(count, 1);
    const auto factor = draw<float>(count, 2);
    for (const Level level : levels()) {
      SCOPED_TRACE(testing::Message() << level_name(level) << " " << count);
      Guarded<TypeParam> y(x, count % 3);
      factor_kernels<TypeParam>(level).apply(factor.data(), y.data(), count);
      for (std::int64_t i = 0; i < count; ++i) {
        const double exact = static_cast<double>(factor[i]) * widened(x[i]);
        ASSERT_NEAR(y[i], exact, allowed<TypeParam>(exact, 1)) << i;
      }
    }
  }
}

TYPED_TEST(FactorLevels, SumTheirGradientsAsThePlainLoop) {
  for (const std::int64_t count : odd_sizes()) {
    const auto kept = draw<TypeParam>(count, 1), dy = draw<TypeParam>(count, 2);
    const auto factor = draw<float>(count, 3), before = draw<float>(count, 4);
    for (const Level level : levels()) {
      SCOPED_TRACE(testing::Message() << level_name(level) << " " << count);
      Guarded<TypeParam> dz(dy, count % 3);
      Guarded<float> products(before, count % 2), totals(before, 1);
      factor_kernels<TypeParam>(level).backward(
          {factor.data(), kept.data(), dz.data(), dz.data(), products.data(), totals.data()},
          count);
      for (std::int64_t i = 0; i < count; ++i) {
        const double d = widened(dy[i]), exact = d * static_cast<double>(factor[i]);
        ASSERT_NEAR(dz[i], exact, allowed<TypeParam>(exact, 1)) << i;
        const double sum = static_cast<double>(before[i]) + d * widened(kept[i]);
        ASSERT_NEAR(products[i], sum, 1e-5 * (1 + std::abs(sum))) << i;
        ASSERT_NEAR(totals[i], before[i] + d, 1e-5 * (1 + std::abs(before[i] + d))) << i;
      }
    }
  }
}

}  // namespace
}  // namespace omnima::kernels

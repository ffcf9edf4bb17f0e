// The rows of experts at every level, in both number formats, against plain loops in double.
#include <gtest/gtest.h>

#include "levels.h"
#include "omnima/kernels/cpu/expert_rows.h"

namespace omnima::kernels {
namespace {

template <class T>
class ExpertRowLevels : public testing::Test {};
using Numbers = testing::Types<float, bfloat16>;
TYPED_TEST_SUITE(ExpertRowLevels, Numbers);

TYPED_TEST(ExpertRowLevels, EqualPlainLoops) {
  using T = TypeParam;
  for (const std::int64_t cols : odd_sizes()) {
    const auto a = draw<T>(cols, 1), b = draw<T>(cols, 2), c = draw<T>(cols, 3);
    double product = 0;
    for (std::int64_t i = 0; i < cols; ++i) product += double{widened(a[i])} * widened(b[i]);
    for (const Level level : levels()) {
      SCOPED_TRACE(testing::Message() << level_name(level) << ", " << cols);
      const auto& kernels = expert_row_kernels<T>(level);
      Guarded<T> first(a, 1), second(b, 0), third(c, 1), y(cols, 1);
      EXPECT_NEAR(kernels.dot(first.data(), second.data(), cols), product,
                  1e-6 * (10.0 + static_cast<double>(cols)));
      const T* rows[] = {first.data(), second.data(), third.data()};
      for (std::int64_t count = 0; count <= 3; ++count) {
        kernels.sum(rows, count, y.data(), cols);
        for (std::int64_t i = 0; i < cols; ++i) {
          double sum = 0;
          for (std::int64_t row = 0; row < count; ++row) sum += widened(rows[row][i]);
          ASSERT_NEAR(y[i], sum, allowed<T>(sum)) << count << " rows, " << i;
        }
      }
      kernels.scale(first.data(), -1.75f, first.data(), cols);
      for (std::int64_t i = 0; i < cols; ++i) {
        const double expected = -1.75 * widened(a[i]);
        ASSERT_NEAR(first[i], expected, allowed<T>(expected)) << i;
      }
    }
  }
}

}  // namespace
}  // namespace omnima::kernels

// Dropout at every level: the same numbers fall, whatever the vectors.
#include <gtest/gtest.h>

#include "levels.h"
#include "omnima/kernels/cpu/dropout.h"

namespace omnima::kernels {
namespace {

std::uint32_t plain_draw(std::uint32_t place, std::uint64_t key) {
  std::uint32_t h = place * 0x9e3779b1u + static_cast<std::uint32_t>(key);
  h = (h ^ (h >> 16)) * 0x7feb352du + static_cast<std::uint32_t>(key >> 32);
  h = (h ^ (h >> 15)) * 0x846ca68bu;
  return h ^ (h >> 16);
}

template <class T>
class DropoutLevels : public testing::Test {};
using Formats = testing::Types<float, bfloat16>;
TYPED_TEST_SUITE(DropoutLevels, Formats);

TYPED_TEST(DropoutLevels, DropWhatThePlainHashDrops) {
  for (const std::int64_t count : odd_sizes()) {
    const auto x = draw<TypeParam>(count, 1);
    for (const std::uint64_t key : {0ULL, 1ULL, 0x123456789abcdefULL, ~0ULL}) {
      for (const std::uint32_t threshold : {1u, 1u << 30, 3u << 30, ~0u}) {
        const DropoutRule rule{key, threshold, 1.25f};
        for (const Level level : levels()) {
          SCOPED_TRACE(testing::Message() << level_name(level) << " " << count);
          Guarded<TypeParam> in(x, count % 3), out(count, 1);
          dropout_kernels<TypeParam>(level).apply(in.data(), out.data(), count, rule);
          dropout_kernels<TypeParam>(level).apply(in.data(), in.data(), count, rule);
          for (std::int64_t i = 0; i < count; ++i) {
            const bool keeps = plain_draw(static_cast<std::uint32_t>(i), key) >= threshold;
            const double exact = keeps ? 1.25 * widened(x[i]) : 0.0;
            ASSERT_NEAR(out[i], exact, allowed<TypeParam>(exact, 1)) << i;
            ASSERT_EQ(in[i], out[i]) << i;
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace omnima::kernels

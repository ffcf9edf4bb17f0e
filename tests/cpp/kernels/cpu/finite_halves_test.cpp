// Every instruction-set level of the look at exponents, wherever a full one stands.
#include "omnima/kernels/cpu/finite_halves.h"

#include <gtest/gtest.h>

#include <cstring>

#include "levels.h"

namespace omnima::kernels {
namespace {

struct Blocks {
  std::int64_t bytes;
  std::vector<std::int64_t> places;
  std::uint16_t mask;
};

class FiniteHalvesTest : public testing::TestWithParam<Blocks> {};

TEST_P(FiniteHalvesTest, AFullExponentIsSeenInEveryPlaceAndNothingElseIs) {
  const auto& [bytes, places, mask] = GetParam();
  const ExponentPattern pattern(bytes, places, mask);
  for (const Level level : levels()) {
    const HalvesAreFinite finite = halves_are_finite(level);
    for (const std::int64_t blocks : {0, 1, 2, 3, 31, 33, 257}) {
      // All bits set but one of each exponent; one byte on, so that nothing is aligned.
      std::vector<std::uint8_t> memory(static_cast<std::size_t>(1 + blocks * bytes), 0xff);
      const auto put = [&](std::int64_t block, std::int64_t place, std::uint16_t bits) {
        std::memcpy(memory.data() + 1 + block * bytes + place, &bits, sizeof(bits));
      };
      const auto open = static_cast<std::uint16_t>(~(mask & (0u - mask)));
      for (std::int64_t block = 0; block < blocks; ++block) {
        for (const std::int64_t place : places) put(block, place, open);
      }
      const std::int64_t halves = blocks * bytes / 2;
      EXPECT_TRUE(finite(memory.data() + 1, halves, pattern)) << level_name(level);
      for (std::int64_t block = 0; block < blocks; ++block) {
        for (const std::int64_t place : places) {
          for (const std::uint16_t full : {mask, static_cast<std::uint16_t>(0xffff)}) {
            put(block, place, full);
            ASSERT_FALSE(finite(memory.data() + 1, halves, pattern))
                << level_name(level) << ' ' << block << ' ' << place;
          }
          put(block, place, open);
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Blocks, FiniteHalvesTest,
                         testing::Values(Blocks{2, {0}, 0x7c00}, Blocks{2, {0}, 0x7f80},
                                         Blocks{4, {2}, 0x7f80}, Blocks{18, {0}, 0x7c00},
                                         Blocks{20, {0, 2}, 0x7c00}, Blocks{34, {0}, 0x7c00},
                                         Blocks{64, {62}, 0x7c00}));

}  // namespace
}  // namespace omnima::kernels

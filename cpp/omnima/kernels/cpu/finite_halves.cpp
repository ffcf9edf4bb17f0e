// Chooses the variant of the look at exponents for the active instruction-set level.
#include "omnima/kernels/cpu/finite_halves.h"

#include <cstddef>
#include <numeric>

namespace omnima::kernels {

namespace generic {
bool halves_are_finite(const std::uint8_t*, std::int64_t, const ExponentPattern&);
}
#ifdef OMNIMA_X86
namespace avx2 {
bool halves_are_finite(const std::uint8_t*, std::int64_t, const ExponentPattern&);
}
namespace avx512 {
bool halves_are_finite(const std::uint8_t*, std::int64_t, const ExponentPattern&);
}
#endif

ExponentPattern::ExponentPattern(std::int64_t bytes, const std::vector<std::int64_t>& places,
                                 std::uint16_t mask) {
  constexpr std::int64_t kRound = 512;  // bytes at least, and whole vectors
  const std::int64_t whole = std::lcm(bytes, std::int64_t{64});
  const std::int64_t all = (kRound + whole - 1) / whole * whole;
  masks.resize(static_cast<std::size_t>(all / 2));
  carries.resize(masks.size());
  for (std::int64_t block = 0; block < all; block += bytes) {
    for (const std::int64_t place : places) {
      const auto at = static_cast<std::size_t>((block + place) / 2);
      masks[at] = mask;
      carries[at] = static_cast<std::uint16_t>(mask & (0u - mask));
    }
  }
}

HalvesAreFinite halves_are_finite(Level level) {
  static const Variants<HalvesAreFinite> variants{
      {Level::kGeneric, generic::halves_are_finite},
#ifdef OMNIMA_X86
      {Level::kAvx2, avx2::halves_are_finite},
      {Level::kAvx512, avx512::halves_are_finite},
#endif
  };
  return variants.at(level);
}

}  // namespace omnima::kernels

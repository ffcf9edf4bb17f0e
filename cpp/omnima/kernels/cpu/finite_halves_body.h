// The body of finite_halves_<level>.cpp: one source, compiled once for each instruction set.
#include <algorithm>
#include <cstring>

#include "omnima/kernels/cpu/finite_halves.h"

namespace omnima::kernels::OMNIMA_LEVEL {

bool halves_are_finite(const std::uint8_t* at, std::int64_t halves,
                       const ExponentPattern& pattern) {
  constexpr std::int64_t kLine = 64;
  constexpr std::int64_t kAhead =
      4096;  // past the page, where the machine's own reading ahead ends
  const auto period = static_cast<std::int64_t>(pattern.masks.size());
  const std::uint16_t* masks = pattern.masks.data();
  const std::uint16_t* carries = pattern.carries.data();
  std::uint16_t special = 0;
  for (; halves > 0; halves -= period, at += 2 * period) {
    for (std::int64_t i = 0; i < 2 * period; i += kLine) __builtin_prefetch(at + kAhead + i);
    const std::int64_t here = std::min(halves, period);
#pragma omp simd reduction(| : special)
    for (std::int64_t i = 0; i < here; ++i) {
      std::uint16_t bits;
      std::memcpy(&bits, at + 2 * i, sizeof(bits));
      special |= static_cast<std::uint16_t>((bits & masks[i]) + carries[i]);
    }
  }
  return (special & 0x8000u) == 0;
}

}  // namespace omnima::kernels::OMNIMA_LEVEL

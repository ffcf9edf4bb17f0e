// Whether 16-bit parts of stored numbers are finite: those whose exponent is all ones are NaN or
// infinity.
#pragma once

#include <cstdint>
#include <vector>

#include "omnima/kernels/cpu/cpu_features.h"

namespace omnima::kernels {

// Which bits of memory, seen as 16-bit numbers, are exponents; it repeats.
struct ExponentPattern {
  std::vector<std::uint16_t> masks;    // the bits of the exponent; 0: no such number stands there
  std::vector<std::uint16_t> carries;  // the lowest of them: added to a full one it reaches bit 15

  // Of blocks of `bytes` (an even number) with exponents at the bytes `places` (even, too).
  ExponentPattern(std::int64_t bytes, const std::vector<std::int64_t>& places, std::uint16_t mask);
};

// at: whole blocks of the pattern, `halves` 16-bit numbers in all, aligned to nothing.
using HalvesAreFinite = bool (*)(const std::uint8_t* at, std::int64_t halves,
                                 const ExponentPattern& pattern);

// The kernel of an instruction-set level; a level without its own takes the next lower one.
HalvesAreFinite halves_are_finite(Level level = active_level());

}  // namespace omnima::kernels

// The tables behind unicode.h, written by tools/make_unicode.py.
#pragma once

#include <cstddef>
#include <cstdint>

namespace omnima::text::unicode_data {

// Classes of all code points from 0 on, as runs: length * 64 + class.
extern const std::uint32_t kClassRuns[];
extern const std::size_t kClassRunsSize;

// (first code point, length, canonical combining class) of each run with a class above 0.
extern const std::uint32_t kCombiningRuns[];
extern const std::size_t kCombiningRunsSize;

// (code point, first, second or 0, whether the two compose to it) of each canonical mapping.
extern const std::uint32_t kDecompositions[];
extern const std::size_t kDecompositionsSize;

}  // namespace omnima::text::unicode_data

// Numbers without visible relation from numbers in order: keys of masks, shuffles and draws.
#pragma once

#include <cstdint>

namespace omnima::core {

// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every bit of the input moves all others.
inline std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

inline std::uint64_t mix(std::uint64_t a, std::uint64_t b) { return mix(mix(a) ^ b); }

}  // namespace omnima::core

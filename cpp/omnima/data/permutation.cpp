// A balanced Feistel network over the smallest even number of bits that holds the domain.
#include "omnima/data/permutation.h"

#include "omnima/core/mix.h"

namespace omnima::data {

using core::mix;

Permutation::Permutation(std::uint64_t count, std::uint64_t key) : count_(count) {
  while (half_bits_ < 31 && (1ULL << (2 * half_bits_)) < count) ++half_bits_;
  for (std::uint64_t& round_key : keys_) round_key = key = mix(key);
}

std::uint64_t Permutation::once(std::uint64_t value) const {
  const std::uint64_t mask = (1ULL << half_bits_) - 1;
  std::uint64_t left = value >> half_bits_;
  std::uint64_t right = value & mask;
  for (const std::uint64_t round_key : keys_) {
    const std::uint64_t next = left ^ (mix(right ^ round_key) & mask);
    left = right;
    right = next;
  }
  return (left << half_bits_) | right;
}

std::uint64_t Permutation::operator()(std::uint64_t index) const {
  do {
    index = once(index);
  } while (index >= count_);  // stays on the cycle of `index`, so the result is a permutation
  return index;
}

}  // namespace omnima::data

// A keyed permutation of 0..count-1 that is computed, not stored: a Feistel network with cycle
// walking (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002, section 4).
#pragma once

#include <cstdint>

namespace omnima::data {

class Permutation {
 public:
  Permutation(std::uint64_t count, std::uint64_t key);
  std::uint64_t operator()(std::uint64_t index) const;  // index < count

 private:
  static constexpr int kRounds = 6;
  std::uint64_t once(std::uint64_t value) const;

  std::uint64_t count_;
  int half_bits_ = 1;  // the network permutes 2^(2 half_bits_) numbers, at most 4 count
  std::uint64_t keys_[kRounds];
};

}  // namespace omnima::data

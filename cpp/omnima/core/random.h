// A small random generator whose whole state is one number: equal keys give equal draws everywhere.
#pragma once

#include <cstdint>

#include "omnima/core/mix.h"

namespace omnima::core {

class Random {
 public:
  explicit Random(std::uint64_t key) : key_(key) {}

  // The next number, evenly in [0, 1).
  double uniform() { return static_cast<double>(mix(key_, count_++) >> 11) * 0x1.0p-53; }

 private:
  std::uint64_t key_;
  std::uint64_t count_ = 0;
};

}  // namespace omnima::core

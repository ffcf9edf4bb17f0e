// What the tests of CPU kernels share: the levels of this machine, sizes at which loops go wrong,
// values in both number formats, and memory that notices a write beside it.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

#include "omnima/kernels/cpu/cpu_features.h"
#include "omnima/kernels/cpu/number_types.h"

namespace omnima::kernels {

inline constexpr float kInf = std::numeric_limits<float>::infinity();
inline constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Every level that this machine can run, lowest first.
inline std::vector<Level> levels() {
  std::vector<Level> all;
  for (std::size_t i = 0; i <= static_cast<std::size_t>(detected_level()); ++i) {
    all.push_back(static_cast<Level>(i));
  }
  return all;
}

// One, around the vectors' lengths, primes, and longer than any block of a kernel.
inline const std::vector<std::int64_t>& odd_sizes() {
  static const std::vector<std::int64_t> sizes{1,  2,  3,  5,  7,  8,   11,  15,  16,  17,
                                               23, 31, 32, 33, 61, 127, 128, 131, 257, 4099};
  return sizes;
}

inline float widened(float x) { return x; }
inline float widened(bfloat16 x) { return std::bit_cast<float>(std::uint32_t{x.bits} << 16); }

template <class T>
std::vector<float> widened(const std::vector<T>& x) {
  std::vector<float> y;
  for (const T v : x) y.push_back(widened(v));
  return y;
}

// To the nearest; ties away from zero, which no test draws on purpose.
template <class T>
T as(float x) {
  if constexpr (std::is_same_v<T, float>) {
    return x;
  } else {
    if (std::isnan(x)) return {0x7fc0};
    if (std::isinf(x)) return {static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(x) >> 16)};
    return {static_cast<std::uint16_t>((std::bit_cast<std::uint32_t>(x) + 0x8000u) >> 16)};
  }
}

template <class T>
std::vector<T> as(const std::vector<float>& x) {
  std::vector<T> y;
  for (const float v : x) y.push_back(as<T>(v));
  return y;
}

inline std::vector<bfloat16> narrowed(const std::vector<float>& x) { return as<bfloat16>(x); }

template <class T = float>
std::vector<T> draw(std::size_t count, unsigned seed, float scale = 1.0f) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<T> values(count);
  for (T& value : values) value = as<T>(normal(engine));
  return values;
}

// How far a result may lie from the exact one: a few roundings of T for a value of this size.
template <class T>
double allowed(double expected, double scale = 1.0) {
  const double unit = std::is_same_v<T, float> ? 4e-6 : 1.0 / 200;
  return unit * (std::abs(expected) + (std::is_same_v<T, float> ? scale : 2e-3 * scale));
}

// Memory that starts `offset` elements after an address of 64 bytes, between two stretches that
// nobody may touch.
template <class T>
class Guarded {
 public:
  explicit Guarded(const std::vector<T>& values, std::int64_t offset = 0)
      : count_(static_cast<std::int64_t>(values.size())), memory_(values.size() + 3 * kGuard) {
    const auto at = reinterpret_cast<std::uintptr_t>(memory_.data()) / sizeof(T);
    begin_ = kGuard + static_cast<std::int64_t>((kAligned - at % kAligned) % kAligned) + offset;
    std::fill(memory_.begin(), memory_.end(), mark());
    std::copy(values.begin(), values.end(), memory_.begin() + begin_);
  }
  explicit Guarded(std::int64_t count, std::int64_t offset = 0)
      : Guarded(std::vector<T>(static_cast<std::size_t>(count)), offset) {}
  ~Guarded() {
    for (std::int64_t i = 0; i < static_cast<std::int64_t>(memory_.size()); ++i) {
      if (i >= begin_ && i < begin_ + count_) continue;
      if (widened(memory_[i]) != widened(mark())) {
        ADD_FAILURE() << "wrote at " << i - begin_ << " of " << count_ << " values";
        return;
      }
    }
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  T* data() { return memory_.data() + begin_; }
  float operator[](std::int64_t i) const { return widened(memory_[begin_ + i]); }

 private:
  static constexpr std::int64_t kGuard = 96, kAligned = 64 / sizeof(T);
  static T mark() { return as<T>(-77.0f); }

  std::int64_t count_, begin_ = 0;
  std::vector<T> memory_;
};

}  // namespace omnima::kernels

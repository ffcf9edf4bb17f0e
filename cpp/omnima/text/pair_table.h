// An open-addressing table from a pair of 32-bit numbers to a pair of 32-bit numbers, built once
// and then read.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace omnima::text {

class PairTable {
 public:
  struct Value {
    std::uint32_t first, second;
  };

  // Room for count pairs at half load.
  explicit PairTable(std::size_t count)
      : slots_(std::bit_ceil(2 * count + 2)), shift_(64 - std::countr_zero(slots_.size())) {}

  // A key that is there already gets the new value.
  void insert(std::uint32_t a, std::uint32_t b, Value value) {
    const std::uint64_t key = join(a, b);
    std::size_t slot = start(key);
    while (slots_[slot].key != kEmpty && slots_[slot].key != key) slot = next(slot);
    slots_[slot] = {key, value};
  }

  const Value* find(std::uint32_t a, std::uint32_t b) const {
    const std::uint64_t key = join(a, b);
    std::size_t slot = start(key);
    while (slots_[slot].key != kEmpty) {
      if (slots_[slot].key == key) return &slots_[slot].value;
      slot = next(slot);
    }
    return nullptr;
  }

 private:
  static constexpr std::uint64_t kEmpty = ~0ULL;  // no id reaches 2^32 - 1
  struct Slot {
    std::uint64_t key = kEmpty;
    Value value{};
  };

  static std::uint64_t join(std::uint32_t a, std::uint32_t b) {
    return static_cast<std::uint64_t>(a) << 32 | b;
  }
  // Fibonacci hashing: the top bits of a product with 2^64 / golden ratio.
  std::size_t start(std::uint64_t key) const { return (key * 0x9E3779B97F4A7C15ULL) >> shift_; }
  std::size_t next(std::size_t slot) const { return (slot + 1) & (slots_.size() - 1); }

  std::vector<Slot> slots_;
  int shift_;
};

}  // namespace omnima::text

// From the text of a piece to its id: an open-addressing table, built once and then read.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "omnima/text/vocabulary.h"

namespace omnima::text {

class PieceIndex {
 public:
  // Of pieces that outlive it; of equal ones the first counts.
  explicit PieceIndex(std::span<const std::string_view> pieces)
      : pieces_(pieces), slots_(std::bit_ceil(2 * pieces.size() + 2)) {
    for (std::size_t id = 0; id < pieces.size(); ++id) {
      const std::uint64_t hash = hash_of(pieces[id]);
      std::size_t slot = hash & (slots_.size() - 1);
      while (slots_[slot].id != kNoId && !is(slots_[slot], hash, pieces[id])) slot = next(slot);
      if (slots_[slot].id != kNoId) {
        holds_twice_ = true;
      } else {
        slots_[slot] = {static_cast<std::uint32_t>(hash >> 32), static_cast<Id>(id)};
      }
    }
  }

  // kNoId: there is no such piece.
  Id find(std::string_view text) const {
    const std::uint64_t hash = hash_of(text);
    std::size_t slot = hash & (slots_.size() - 1);
    while (slots_[slot].id != kNoId && !is(slots_[slot], hash, text)) slot = next(slot);
    return slots_[slot].id;
  }

  std::span<const std::string_view> pieces() const { return pieces_; }
  bool holds_twice() const { return holds_twice_; }

 private:
  struct Slot {
    std::uint32_t tag = 0;  // the hash's upper half: most texts that differ are told apart by it
    Id id = kNoId;
  };

  bool is(const Slot& slot, std::uint64_t hash, std::string_view text) const {
    return slot.tag == static_cast<std::uint32_t>(hash >> 32) && same(pieces_[slot.id], text);
  }
  std::size_t next(std::size_t slot) const { return (slot + 1) & (slots_.size() - 1); }

  // As ==, without a call for the short texts that pieces are.
  static bool same(std::string_view a, std::string_view b) {
    if (a.size() != b.size()) return false;
    if (a.size() > 16 || a.size() < 4) return a == b;
    const auto load = [](std::string_view text, std::size_t at, auto part) {
      std::memcpy(&part, text.data() + at, sizeof(part));
      return part;
    };
    const auto ends_are_same = [&](auto part) {
      const std::size_t last = a.size() - sizeof(part);
      return load(a, 0, part) == load(b, 0, part) && load(a, last, part) == load(b, last, part);
    };
    return a.size() >= 8 ? ends_are_same(std::uint64_t{}) : ends_are_same(std::uint32_t{});
  }

  static std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
    const std::uint64_t product = (a ^ b) * 0x9E3779B97F4A7C15ULL;
    return product ^ product >> 29;
  }

  // Eight bytes at a time; the last ones may overlap those before.
  static std::uint64_t hash_of(std::string_view text) {
    const auto load = [&](std::size_t at, auto zero) {
      std::memcpy(&zero, text.data() + at, sizeof(zero));
      return static_cast<std::uint64_t>(zero);
    };
    const std::size_t size = text.size();
    std::uint64_t hash = mix(size, 0);
    for (std::size_t at = 0; at + 8 < size; at += 8) hash = mix(hash, load(at, std::uint64_t{}));
    if (size >= 8) return mix(hash, load(size - 8, std::uint64_t{}));
    if (size >= 4) {
      return mix(hash, load(0, std::uint32_t{}) << 32 | load(size - 4, std::uint32_t{}));
    }
    if (size == 0) return hash;
    const std::uint64_t ends = load(0, std::uint8_t{}) << 8 | load(size - 1, std::uint8_t{});
    return mix(hash, ends << 8 | load(size / 2, std::uint8_t{}));
  }

  std::span<const std::string_view> pieces_;
  std::vector<Slot> slots_;
  bool holds_twice_ = false;
};

}  // namespace omnima::text

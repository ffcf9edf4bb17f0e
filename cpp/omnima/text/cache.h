// The ids of short chunks seen before: a direct-mapped table, one cache line an entry, for one
// thread at a time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "omnima/text/vocabulary.h"

namespace omnima::text {

class ChunkCache {
 public:
  static constexpr std::size_t kMaxBytes = 22;
  static constexpr std::size_t kMaxIds = 10;

  struct alignas(64) Entry {
    std::uint8_t bytes = 0;  // 0: empty
    std::uint8_t count = 0;
    char text[kMaxBytes];
    Id ids[kMaxIds];

    bool holds(std::string_view chunk) const {
      return bytes == chunk.size() && std::memcmp(text, chunk.data(), chunk.size()) == 0;
    }
  };

  ChunkCache() : entries_(kEntries) {}

  // The entry where a chunk of 1 to kMaxBytes bytes lives or would live.
  Entry& entry(std::string_view chunk) { return entries_[hash(chunk) >> (64 - kBits)]; }

  // Ids beyond kMaxIds are not kept.
  static void store(Entry& entry, std::string_view chunk, const Id* ids, std::size_t count) {
    if (count > kMaxIds) return;
    entry.bytes = static_cast<std::uint8_t>(chunk.size());
    entry.count = static_cast<std::uint8_t>(count);
    std::copy(chunk.begin(), chunk.end(), entry.text);
    std::copy(ids, ids + count, entry.ids);
  }

 private:
  static constexpr int kBits = 15;
  static constexpr std::size_t kEntries = std::size_t{1} << kBits;  // 2 MiB

  static std::uint64_t hash(std::string_view chunk) {
    constexpr std::uint64_t kMultiplier = 0x9E3779B97F4A7C15ULL;
    std::uint64_t state = chunk.size();
    const char* data = chunk.data();
    std::size_t left = chunk.size();
    const auto mix = [&](std::uint64_t word) {
      state = (state ^ word) * kMultiplier;
      state ^= state >> 32;
    };
    for (; left >= 8; left -= 8, data += 8) {
      std::uint64_t word;
      std::memcpy(&word, data, 8);
      mix(word);
    }
    std::uint64_t tail = 0;
    for (std::size_t i = 0; i < left; ++i) {
      tail = tail << 8 | static_cast<unsigned char>(data[i]);
    }
    mix(tail);
    return state * kMultiplier;
  }

  std::vector<Entry> entries_;
};

}  // namespace omnima::text

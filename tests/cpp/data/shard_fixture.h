// Token shards on disk for tests of the loader.
#pragma once

#include <fstream>
#include <string>
#include <vector>

#include "../temporary_directory.h"
#include "omnima/data/loader.h"

namespace omnima::data {

inline constexpr std::int64_t kEnd = 1;
inline constexpr std::int64_t kStart = 2;

// A shard on disk whose document d has lengths[d] tokens that are all different, and its end.
class ShardTest : public TemporaryDirectoryTest {
 protected:
  ShardFiles shard(const std::vector<int>& lengths) {
    const std::string base = directory_ / std::to_string(shards_++);
    std::vector<std::uint16_t> tokens;
    std::vector<std::uint64_t> ends;
    for (const int length : lengths) {
      for (int i = 0; i < length; ++i) tokens.push_back(next_++);
      tokens.push_back(kEnd);
      ends.push_back(tokens.size());
    }
    write(base + ".tokens", tokens);
    write(base + ".docs", ends);
    return {base + ".tokens", base + ".docs", tokens.size(), ends.size()};
  }

  template <class T>
  static void write(const std::string& path, const std::vector<T>& values) {
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(values.data()),
               static_cast<std::streamsize>(values.size() * sizeof(T)));
  }

  int shards_ = 0;
  std::uint16_t next_ = 10;
};

}  // namespace omnima::data

// Memory in a file without a name: it keeps what is written, leaves the process when it is let go,
// and leaves nothing behind.
#include "omnima/core/scratch_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <numeric>
#include <string>
#include <vector>

#include "../temporary_directory.h"
#include "omnima/core/error.h"

namespace omnima::core {
namespace {

namespace fs = std::filesystem;

using ScratchFileTest = TemporaryDirectoryTest;

// How much of the mapping that holds an address is in memory; the process as a whole would count
// the shadow memory of a sanitizer too.
std::size_t resident_bytes(const void* address) {
  const auto place = reinterpret_cast<std::uintptr_t>(address);
  std::ifstream file("/proc/self/smaps");
  bool inside = false;
  for (std::string line; std::getline(file, line);) {
    std::uintptr_t first = 0, last = 0;
    unsigned long kilobytes = 0;
    if (std::sscanf(line.c_str(), "%" SCNxPTR "-%" SCNxPTR " ", &first, &last) == 2) {
      inside = first <= place && place < last;
    } else if (inside && std::sscanf(line.c_str(), "Rss: %lu kB", &kilobytes) == 1) {
      return std::size_t{kilobytes} << 10;
    }
  }
  ADD_FAILURE() << "no mapping holds " << address;
  return 0;
}

TEST_F(ScratchFileTest, BeginsAsZerosAndLeavesNothingInItsDirectory) {
  const auto file = ScratchFile::create(directory_, 5000);
  EXPECT_EQ(file->size(), 5000u);
  EXPECT_TRUE(std::all_of(file->data(), file->data() + 5000, [](char c) { return c == 0; }));
  EXPECT_TRUE(fs::is_empty(directory_));
  EXPECT_EQ(ScratchFile::create(directory_, 0)->size(), 1u);
}

TEST_F(ScratchFileTest, KeepsWhatWasWrittenWhenItIsLetGo) {
  const auto first = ScratchFile::create(directory_, 100000);
  const auto second = ScratchFile::create(directory_, 100000);
  for (const auto& file : {first, second}) {
    std::iota(file->data(), file->data() + file->size(), file == first ? 1 : 7);
  }
  let_go(first->data() + 5000, 90000);
  read_ahead(first->data() + 5000, 1 << 20);  // beyond the end: as far as it goes
  let_go(second->data(), 100000);
  for (std::size_t i = 0; i < 100000; ++i) {
    ASSERT_EQ(first->data()[i], static_cast<char>(1 + i)) << i;
    ASSERT_EQ(second->data()[i], static_cast<char>(7 + i)) << i;
  }
}

TEST_F(ScratchFileTest, WhatIsLetGoIsNoLongerTheProcesss) {
#ifndef __linux__
  GTEST_SKIP() << "what is in memory is read from /proc";
#endif
  constexpr std::size_t kBytes = std::size_t{64} << 20;
  const auto file = ScratchFile::create(directory_, kBytes);
  std::fill(file->data(), file->data() + kBytes, 3);
  EXPECT_GT(resident_bytes(file->data()), kBytes / 2);
  let_go(file->data(), kBytes);
  EXPECT_LT(resident_bytes(file->data()), kBytes / 8);
  EXPECT_EQ(file->data()[kBytes - 1], 3);
}

TEST_F(ScratchFileTest, OtherMemoryIsLeftAlone) {
  std::vector<int> values(1 << 16, 5);
  let_go(values.data(), values.size() * sizeof(int));
  read_ahead(values.data(), values.size() * sizeof(int));
  page_out(values.data(), values.size() * sizeof(int));
  EXPECT_EQ(std::count(values.begin(), values.end(), 5), 1 << 16);
}

TEST_F(ScratchFileTest, WhatTheDiskCannotTakeIsRefusedAtOnce) {
  const auto message = [](const fs::path& directory, std::size_t bytes) -> std::string {
    try {
      ScratchFile::create(directory, bytes);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "";
  };
  const std::string full = message(directory_, std::size_t{1} << 52);
  EXPECT_NE(full.find("cannot take a file of 4294967297 MiB"), std::string::npos) << full;
  EXPECT_NE(full.find("MiB are free there"), std::string::npos) << full;
  EXPECT_TRUE(fs::is_empty(directory_));
  const std::string missing = message(directory_ / "nowhere", 10);
  EXPECT_NE(missing.find("No such file or directory. Name an existing directory"),
            std::string::npos)
      << missing;
}

}  // namespace
}  // namespace omnima::core

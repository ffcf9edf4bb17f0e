// The advice on huge pages changes no contents, whatever the range.
#include "omnima/core/huge_pages.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <vector>

namespace omnima::core {
namespace {

TEST(HugePages, LeaveTheContentsAsTheyAre) {
  for (const std::size_t bytes : {0u, 1u, 4096u, (2u << 20) - 1, 5u << 20}) {
    std::vector<unsigned char> memory(bytes, 7);
    prefer_huge_pages(memory.data(), bytes);
    EXPECT_TRUE(std::all_of(memory.begin(), memory.end(), [](auto byte) { return byte == 7; }));
    std::fill(memory.begin(), memory.end(), static_cast<unsigned char>(9));
    EXPECT_EQ(std::count(memory.begin(), memory.end(), 9), static_cast<std::ptrdiff_t>(bytes));
  }
}

TEST(HugePages, TakeNoMemoryAtAll) { prefer_huge_pages(nullptr, 0); }

}  // namespace
}  // namespace omnima::core

// The entries of the fuzzers, on what those start from and found, and on changes of it: so that
// they hold without clang, too.
#include <gtest/gtest.h>

#include <memory>
#include <random>

#include "../../fuzz/entries.h"
#include "../../fuzz/found.h"

namespace omnima::fuzz {
namespace {

class FuzzEntry : public testing::TestWithParam<const Entry*> {
 protected:
  // On memory of exactly this size: one byte too far is a finding of the sanitizers.
  static void run(const std::string& bytes) {
    const std::unique_ptr<char[]> exact(new char[bytes.size()]);
    std::copy(bytes.begin(), bytes.end(), exact.get());
    GetParam()->run({exact.get(), bytes.size()});
  }
};

std::string changed(std::string bytes, std::mt19937& draw) {
  for (unsigned edits = 1 + draw() % 3; edits > 0 && !bytes.empty(); --edits) {
    const std::size_t at = draw() % bytes.size(), length = 1 + draw() % 8;
    switch (draw() % 5) {
      case 0:
        bytes[at] = static_cast<char>(draw());
        break;
      case 1:
        bytes[at] = static_cast<char>(bytes[at] ^ 1 << draw() % 8);
        break;
      case 2:
        bytes.erase(at, length);
        break;
      case 3:
        bytes.resize(at);
        break;
      default:
        bytes.insert(at, bytes.substr(draw() % bytes.size(), length));
    }
  }
  return bytes;
}

TEST_P(FuzzEntry, TakesItsSeedsAndWhatWasFound) {
  for (const auto& seed : GetParam()->seeds()) EXPECT_NO_THROW(run(seed));
  for (const auto& found : found_cases(GetParam()->name)) {
    EXPECT_NO_THROW(run(found.bytes)) << found.name;
  }
}

TEST_P(FuzzEntry, TakesChangesOfItsSeeds) {
  std::mt19937 draw(1);
  for (const auto& seed : GetParam()->seeds()) {
    for (int i = 0; i < 100; ++i) {
      std::string bytes = changed(seed, draw);
      if (GetParam()->repair != nullptr && i % 2 == 0) GetParam()->repair(bytes);
      EXPECT_NO_THROW(run(bytes)) << testing::PrintToString(bytes);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, FuzzEntry, testing::ValuesIn(entries()),
                         [](const auto& each) { return std::string(each.param->name); });

TEST(FuzzFound, IsTextOfHexadecimalDigits) {
  EXPECT_EQ(from_hex("47 47\n5546"), "GGUF");
  EXPECT_THROW(from_hex("4"), std::invalid_argument);
  EXPECT_THROW(from_hex("4x"), std::invalid_argument);
  EXPECT_TRUE(found_cases("no such entry").empty());
  EXPECT_FALSE(found_cases("quantize").empty());
}

}  // namespace
}  // namespace omnima::fuzz

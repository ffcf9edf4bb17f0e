// A file in memory: what is written into it never reaches the file, and what was read may leave.
#include "omnima/io/mapping.h"

#include <gtest/gtest.h>

#include <fstream>

#include "../temporary_directory.h"

namespace omnima::io {
namespace {

using MappingTest = TemporaryDirectoryTest;

TEST_F(MappingTest, WhatIsForgottenIsReadAgain) {
  const auto path = directory_ / "numbers";
  const std::string bytes(100'000, 'a');
  std::ofstream(path, std::ios::binary) << bytes;
  const auto mapping = Mapping::open(path);
  mapping->read_ahead();
  EXPECT_EQ(mapping->bytes(), bytes);
  mapping->data()[50'000] = 'b';
  Mapping::forget(mapping->data() + 60'000, 10'000);
  EXPECT_EQ(mapping->data()[50'000], 'b');
  Mapping::forget(mapping->data() + 40'000, 20'000);
  EXPECT_EQ(mapping->bytes(), bytes);
}

TEST_F(MappingTest, OtherMemoryIsLeftAlone) {
  const std::string bytes(100'000, 'a');
  const std::string copy = bytes;
  Mapping::forget(bytes.data(), bytes.size());
  const auto path = directory_ / "numbers";
  std::ofstream(path, std::ios::binary) << bytes;
  const auto mapping = Mapping::open(path);
  Mapping::forget(bytes.data(), bytes.size());
  mapping->data()[0] = 'b';
  Mapping::forget(mapping->data(), bytes.size() + 1);  // more than the mapping holds
  EXPECT_EQ(mapping->data()[0], 'b');
  EXPECT_EQ(bytes, copy);
}

}  // namespace
}  // namespace omnima::io

// GGUF: what is written is read; files that lie about their sizes are errors before anything is
// allocated. More of them in tests/python/io.
#include "omnima/io/gguf.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <functional>

#include "../temporary_directory.h"
#include "omnima/core/error.h"

namespace omnima::io {
namespace {

using core::DataError;
using GgufTest = TemporaryDirectoryTest;

GgufMetadata some_metadata() {
  using Scalar = GgufValue::Scalar;
  using Array = GgufValue::Array;
  const auto scalar = [](GgufType type, Scalar value) {
    GgufValue made;
    made.type = type;
    made.value = std::move(value);
    return made;
  };
  const auto array = [](GgufType type, Array value) {
    GgufValue made;
    made.type = type;
    made.value = std::move(value);
    return made;
  };
  return {{"general.architecture", scalar(GgufType::kString, std::string("llama"))},
          {"u8", scalar(GgufType::kU8, std::int64_t{255})},
          {"i8", scalar(GgufType::kI8, std::int64_t{-1})},
          {"u16", scalar(GgufType::kU16, std::int64_t{65535})},
          {"i16", scalar(GgufType::kI16, std::int64_t{-2})},
          {"u32", scalar(GgufType::kU32, std::int64_t{1} << 31)},
          {"i32", scalar(GgufType::kI32, std::int64_t{-3})},
          {"u64", scalar(GgufType::kU64, ~std::uint64_t{0})},
          {"i64", scalar(GgufType::kI64, std::int64_t{-4})},
          {"f32", scalar(GgufType::kF32, 0.5)},
          {"f64", scalar(GgufType::kF64, 1e300)},
          {"bool", scalar(GgufType::kBool, true)},
          {"texts", array(GgufType::kString, std::vector<std::string_view>{"a", ""})},
          {"numbers", array(GgufType::kI32, std::vector<std::int64_t>{1, -2})},
          {"naturals", array(GgufType::kU64, std::vector<std::uint64_t>{7})},
          {"floats", array(GgufType::kF32, std::vector<double>{1.5})},
          {"bools", array(GgufType::kBool, std::vector<bool>{true, false})}};
}

std::function<const void*()> at(const float* numbers) {
  return [numbers] { return numbers; };
}

TEST_F(GgufTest, WhatIsWrittenIsRead) {
  const auto path = directory_ / "a.gguf";
  const std::vector<float> numbers{1, 2, 3, 4, 5, 6};
  write_gguf(path, some_metadata(),
             {{"m", 0, {2, 3}, at(numbers.data())}, {"v", 0, {1}, at(numbers.data())}});
  const GgufFile file = read_gguf(path);
  EXPECT_EQ(file.header.version, 3u);
  const auto expected = some_metadata();
  ASSERT_EQ(file.header.metadata.size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(file.header.metadata[i].first, expected[i].first);
    EXPECT_EQ(file.header.metadata[i].second.type, expected[i].second.type);
    EXPECT_EQ(file.header.metadata[i].second.value, expected[i].second.value) << i;
  }
  ASSERT_EQ(file.header.tensors.size(), 2u);
  EXPECT_EQ(file.header.tensors[0].shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(std::memcmp(file.mapping->data() + file.header.tensors[0].begin, numbers.data(), 24),
            0);
  EXPECT_EQ(file.header.tensors[1].begin % 32, 0);
}

TEST_F(GgufTest, ATensorIsMadeWhenItsTurnHasCome) {
  const auto path = directory_ / "a.gguf";
  std::vector<float> room(8);
  const auto filled = [&room](float value) {
    return [&room, value] {
      std::fill(room.begin(), room.end(), value);
      return room.data();
    };
  };
  write_gguf(path, {}, {{"a", 0, {8}, filled(1)}, {"b", 0, {8}, filled(2)}});
  const GgufFile file = read_gguf(path);
  for (std::size_t i = 0; i < 2; ++i) {
    float first = 0;
    std::memcpy(&first, file.mapping->data() + file.header.tensors[i].begin, sizeof(first));
    EXPECT_EQ(first, static_cast<float>(i + 1));
  }
  std::filesystem::remove(path);
  const auto broken = []() -> const void* { throw DataError("broken"); };
  EXPECT_THROW(write_gguf(path, {}, {{"a", 0, {8}, filled(1)}, {"b", 0, {8}, broken}}), DataError);
  EXPECT_TRUE(std::filesystem::is_empty(directory_));
}

TEST_F(GgufTest, WhatCannotBeWrittenIsRefused) {
  const float number = 1;
  const auto path = directory_ / "a.gguf";
  EXPECT_THROW(write_gguf(path, {}, {{"v", 77, {1}, at(&number)}}), DataError);
  EXPECT_THROW(write_gguf(path, {}, {{"v", 8, {31}, at(&number)}}), DataError);
  EXPECT_THROW(write_gguf(path, {}, {{"v", 0, {1}, at(&number)}, {"v", 0, {1}, at(&number)}}),
               DataError);
  GgufValue text;
  text.type = GgufType::kString;
  text.value = GgufValue::Scalar(std::string("\xff"));
  EXPECT_THROW(write_gguf(path, {{"k", text}}, {}), DataError);
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(GgufTest, EveryCutIsAnError) {
  const auto path = directory_ / "a.gguf";
  const std::vector<float> numbers(8, 1.0f);
  write_gguf(path, some_metadata(), {{"v", 0, {8}, at(numbers.data())}});
  std::ifstream in(path, std::ios::binary);
  const std::string whole((std::istreambuf_iterator<char>(in)), {});
  EXPECT_NO_THROW(parse_gguf(whole, "whole"));
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THROW(parse_gguf(std::string_view(whole).substr(0, size), "cut"), DataError) << size;
  }
  EXPECT_THROW(parse_gguf(whole + std::string(40, '\0'), "longer"), DataError);
}

TEST_F(GgufTest, EveryChangedByteIsAnErrorOrAFile) {
  const auto path = directory_ / "a.gguf";
  const std::vector<float> numbers(8, 1.0f);
  write_gguf(path, some_metadata(), {{"v", 0, {8}, at(numbers.data())}});
  std::ifstream in(path, std::ios::binary);
  const std::string whole((std::istreambuf_iterator<char>(in)), {});
  int errors = 0;
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (const char with : {'\0', '\1', '\x7f', '\xff'}) {
      std::string changed = whole;
      changed[at] = with;
      try {
        const GgufHeader header = parse_gguf(changed, "changed");
        for (const auto& tensor : header.tensors) {
          EXPECT_LE(tensor.begin + tensor.bytes, static_cast<std::int64_t>(changed.size()));
        }
      } catch (const DataError&) {
        ++errors;
      }
    }
  }
  EXPECT_GT(errors, 200);
}

}  // namespace
}  // namespace omnima::io

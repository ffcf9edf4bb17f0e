// Safetensors: what is written reads back; every kind of broken file is refused by name.
#include "omnima/io/safetensors.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>

#include "../temporary_directory.h"
#include "omnima/core/error.h"
#include "omnima/io/durable_file.h"
#include "omnima/io/mapping.h"

namespace omnima::io {
namespace {

namespace fs = std::filesystem;

using Safetensors = TemporaryDirectoryTest;

std::string error_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const core::Error& error) {
    return error.what();
  }
  return "no error";
}

void expect_error(const std::function<void()>& act, const std::string& part) {
  const std::string error = error_of(act);
  EXPECT_NE(error.find(part), std::string::npos) << error << "\ndoes not say: " << part;
}

std::string content(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void put(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

// A file of this header and so many bytes of data.
std::string file_of(const std::string& header, std::size_t data = 0) {
  std::string file;
  for (int i = 0; i < 8; ++i) file += static_cast<char>(header.size() >> (8 * i));
  return file + header + std::string(data, '\1');
}

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  std::int64_t begin, std::int64_t end) {
  return "\"" + name + R"(":{"dtype":")" + dtype + R"(","shape":[)" + shape +
         R"(],"data_offsets":[)" + std::to_string(begin) + "," + std::to_string(end) + "]}";
}

void expect_refused(const std::string& file, const std::string& part) {
  expect_error([&] { parse_safetensors(file, "here"); }, part);
}

TEST_F(Safetensors, EveryDtypeAndShapeReadsBack) {
  const fs::path path = directory_ / "x.safetensors";
  NamedTensors tensors;
  for (const auto dtype : {at::kByte, at::kChar, at::kShort, at::kInt, at::kLong, at::kHalf,
                           at::kBFloat16, at::kFloat, at::kDouble}) {
    tensors.emplace_back(std::string("t.") + c10::toString(dtype),
                         at::arange(6, at::kFloat).to(dtype).reshape({2, 3}));
  }
  tensors.emplace_back("bool", at::arange(3, at::kFloat).to(at::kBool));
  tensors.emplace_back("scalar", at::full({}, 2.5, at::kFloat));
  tensors.emplace_back("empty", at::empty({0, 7}, at::kFloat));
  tensors.emplace_back("transposed", at::arange(6, at::kFloat).reshape({2, 3}).t());
  tensors.emplace_back("n\xC3\xA4me \"\n", at::ones({1}, at::kChar));
  const std::map<std::string, std::string> metadata{{"format", "pt"}, {"a \"b\"", "\xE2\x82\xAC"}};
  write_safetensors(path, tensors, metadata);
  const SafetensorsFile file = read_safetensors(path);
  EXPECT_EQ(file.metadata, metadata);
  ASSERT_EQ(file.tensors.size(), tensors.size());
  const std::map<std::string, at::Tensor> read(file.tensors.begin(), file.tensors.end());
  for (const auto& [name, tensor] : tensors) {
    const auto found = read.find(name);
    ASSERT_NE(found, read.end()) << name;
    EXPECT_EQ(found->second.scalar_type(), tensor.scalar_type()) << name;
    EXPECT_EQ(found->second.sizes(), tensor.sizes()) << name;
    EXPECT_TRUE(at::equal(found->second, tensor)) << name;
  }
  EXPECT_EQ(parse_safetensors(content(path), "x").data_start % 8, 0);
}

TEST_F(Safetensors, AFileOfNoTensorsReadsBack) {
  const fs::path path = directory_ / "x";
  write_safetensors(path, {});
  EXPECT_TRUE(read_safetensors(path).tensors.empty());
}

TEST_F(Safetensors, WritingIntoWhatWasReadLeavesTheFile) {
  const fs::path path = directory_ / "x";
  write_safetensors(path, {{"a", at::ones({4}, at::kFloat)}});
  const std::string before = content(path);
  at::Tensor read = read_safetensors(path).tensors[0].second;  // outlives the mapping's owner
  read.mutable_data_ptr<float>()[0] = 9;
  EXPECT_EQ(content(path), before);
}

TEST_F(Safetensors, DataThatIsNotAlignedIsCopied) {
  const fs::path path = directory_ / "x";
  const float value = 1.5f;
  std::string file =
      file_of("{" + entry("a", "U8", "1", 0, 1) + "," + entry("b", "F32", "1", 1, 5) + "}");
  file += '\7';
  file.append(reinterpret_cast<const char*>(&value), 4);
  put(path, file);
  const auto tensors = read_safetensors(path).tensors;
  EXPECT_EQ(tensors[0].second.const_data_ptr<std::uint8_t>()[0], 7);
  EXPECT_EQ(tensors[1].second.const_data_ptr<float>()[0], 1.5f);
}

TEST_F(Safetensors, FilesThatAreNoneAreRefused) {
  expect_error([&] { read_safetensors(directory_ / "none"); }, "cannot be opened");
  expect_error([&] { read_safetensors(directory_); }, "is not a file");
  put(directory_ / "empty", "");
  expect_error([&] { read_safetensors(directory_ / "empty"); }, "is empty (0 bytes)");
  put(directory_ / "bools", file_of("{" + entry("flag", "BOOL", "2", 0, 2) + "}") + "\1\2");
  expect_error([&] { read_safetensors(directory_ / "bools"); }, "bytes other than 0 and 1");
}

TEST_F(Safetensors, AnyPrefixOfAFileIsRefused) {
  const fs::path path = directory_ / "x";
  write_safetensors(path, {{"a", at::ones({4}, at::kFloat)}, {"b", at::ones({3}, at::kChar)}});
  const std::string whole = content(path);
  parse_safetensors(whole, "x");
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THROW(parse_safetensors(whole.substr(0, size), "x"), core::DataError) << size;
  }
  expect_refused(whole + "z", "1 bytes follow the last tensor");
}

TEST(SafetensorsHeader, RefusesWrongLengths) {
  expect_refused("", "is empty (0 bytes)");
  expect_refused("1234567", "holds 7 bytes, too few");
  expect_refused(std::string(8, '\xFF'), "the header claims 18446744073709551615 bytes");
  expect_refused(std::string("\x01\xE1\xF5\x05\0\0\0\0", 8), "claims 100000001 bytes; safetensors");
  expect_refused(std::string("\x09\0\0\0\0\0\0\0{}", 10), "claims 9 bytes, but only 2");
  expect_refused(file_of(""), "expected an object, found the end");
}

TEST(SafetensorsHeader, RefusesBrokenJson) {
  expect_refused(file_of("[]"), "expected an object");
  expect_refused(file_of("{} x"), "something follows");
  expect_refused(file_of("{\"a\":" + std::string(100'000, '[')),
                 "tensor \"a\": expected an object");
  expect_refused(file_of("{\"a\xFF\":{}}"), "not valid UTF-8");
  expect_refused(file_of(R"({"__metadata__":{"a":1}})"), "expected a string");
  expect_refused(file_of(R"({"__metadata__":{},"__metadata__":{}})"), "stands twice");
  const std::string one = entry("a", "U8", "1", 0, 1);
  expect_refused(file_of("{" + one + "," + one + "}", 1), "the key \"a\" stands twice");
}

TEST(SafetensorsHeader, RefusesBrokenEntries) {
  const auto refused = [](const std::string& fields, const std::string& part) {
    const std::string file = file_of("{\"w\":{" + fields + "}}", 4);
    expect_refused(file, "here, tensor \"w\": ");
    expect_refused(file, part);
  };
  const std::string dtype = R"("dtype":"U8")", shape = R"(,"shape":[4])",
                    offsets = R"(,"data_offsets":[0,4])";
  parse_safetensors(file_of("{\"w\":{" + dtype + shape + offsets + "}}", 4), "here");
  refused(R"("dtype":"F7")" + shape + offsets, "unknown dtype \"F7\"; Omnima reads F64, F32");
  refused(dtype + offsets, "the key \"shape\" is missing");
  refused(dtype + shape, "the key \"data_offsets\" is missing");
  refused(shape.substr(1) + offsets, "the key \"dtype\" is missing");
  refused(dtype + shape + offsets + R"(,"extra":1)", "unknown key \"extra\"");
  refused(dtype + shape + R"(,"data_offsets":[0])", "data_offsets must hold two numbers");
  refused(dtype + shape + R"(,"data_offsets":[0,1,2])", "more than two numbers");
  refused(dtype + shape + R"(,"data_offsets":[4,0])", "end (0) before they begin (4)");
  refused(dtype + R"(,"shape":[5])" + offsets, "ask for 5 bytes, but data_offsets give 4");
  refused(dtype + R"(,"shape":[-4])" + offsets, "a negative number");
  refused(dtype + R"(,"shape":[4294967296,4294967296])" + offsets, "its shape overflows");
  refused(dtype + R"(,"shape":[0,4294967296,4294967296])" + offsets, "its shape overflows");
  refused(dtype + R"(,"shape":[99999999999999999999])" + offsets, "63 bits");
  std::string many = "1";
  for (int i = 0; i < 64; ++i) many += ",1";
  refused(dtype + ",\"shape\":[" + many + "]" + offsets, "more than 64 dimensions");
}

TEST(SafetensorsHeader, RefusesDataThatIsNotCoveredExactly) {
  const std::string a = entry("a", "U8", "4", 0, 4);
  expect_refused(file_of("{" + a + "}", 3), "\"a\": its bytes end at 4, but the file holds only 3");
  expect_refused(file_of("{" + a + "}", 5), "1 bytes follow the last tensor");
  expect_refused(file_of("{" + a + "," + entry("b", "U8", "4", 2, 6) + "}", 6),
                 "\"b\": begins at byte 2 and overlaps");
  expect_refused(file_of("{" + a + "," + entry("b", "U8", "4", 6, 10) + "}", 10),
                 "bytes 4 to 6 before it belong to no tensor (a hole)");
  expect_refused(file_of("{" + entry("b", "U8", "4", 1, 5) + "}", 5), "(a hole)");
}

TEST_F(Safetensors, WhatCannotBeWrittenIsRefusedAndTheOldFileStays) {
  const fs::path path = directory_ / "x";
  const at::Tensor ones = at::ones({2}, at::kFloat);
  write_safetensors(path, {{"a", ones}});
  const std::string before = content(path);
  const auto refused = [&](const NamedTensors& tensors, const std::string& part) {
    expect_error([&] { write_safetensors(path, tensors); }, part);
    EXPECT_EQ(content(path), before);
  };
  refused({{"a", ones}, {"a", ones}}, "\"a\" is given twice");
  refused({{"__metadata__", ones}}, "not __metadata__");
  refused({{"\xFF", ones}}, "valid UTF-8");
  refused({{"a", at::Tensor()}}, "not a dense tensor");
  refused({{"a", ones.to(at::kComplexFloat)}}, "has dtype ComplexFloat");
  expect_error([&] { write_safetensors(path, {{"a", ones}}, {{"key", "\xFF"}}); },
               "the value of key");
  expect_error([&] { write_safetensors(directory_ / "none" / "x", {{"a", ones}}); },
               "could not be created: No such file or directory");
  fs::create_directory(directory_ / "folder");
  expect_error([&] { write_safetensors(directory_ / "folder", {{"a", ones}}); },
               "could not be renamed into place");
  EXPECT_EQ(content(path), before);
  EXPECT_EQ(std::distance(fs::directory_iterator(directory_), {}), 2) << "something was left aside";
}

TEST_F(Safetensors, AFileIsInPlaceOnlyAfterCommit) {
  const fs::path path = directory_ / "x";
  put(path, "old");
  {
    DurableFile file(path);
    file.write("new text", 8);
  }
  EXPECT_EQ(content(path), "old");
  EXPECT_EQ(std::distance(fs::directory_iterator(directory_), {}), 1);
  DurableFile file(path);
  file.write("new ", 4);
  EXPECT_EQ(content(path), "old");
  file.write("text", 4);
  file.commit();
  EXPECT_EQ(content(path), "new text");
  EXPECT_EQ(Mapping::open(path)->bytes(), "new text");
  EXPECT_EQ(std::distance(fs::directory_iterator(directory_), {}), 1);
}

TEST(Nonfinite, NamesTheTensorsThatHoldNanOrInfinity) {
  NamedTensors tensors;
  std::vector<std::string> wanted;
  for (const auto dtype : {at::kHalf, at::kBFloat16, at::kFloat, at::kDouble}) {
    tensors.emplace_back("good", at::ones({3}, dtype));
    for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
      wanted.push_back(std::string(c10::toString(dtype)) + std::to_string(bad));
      at::Tensor tensor = at::ones({3}, dtype);
      tensor[1].fill_(bad);
      tensors.emplace_back(wanted.back(), tensor);
    }
  }
  tensors.emplace_back("whole", at::full({2}, -1, at::kLong));
  EXPECT_EQ(nonfinite_names(tensors), wanted);
}

}  // namespace
}  // namespace omnima::io

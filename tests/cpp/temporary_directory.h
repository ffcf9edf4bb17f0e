// A directory of a test's own, gone with the test.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace omnima {

class TemporaryDirectoryTest : public ::testing::Test {
 protected:
  TemporaryDirectoryTest() {
    std::string name = (std::filesystem::temp_directory_path() / "omnima-XXXXXX").string();
    directory_ = ::mkdtemp(name.data());
  }
  ~TemporaryDirectoryTest() override { std::filesystem::remove_all(directory_); }

  std::filesystem::path directory_;
};

}  // namespace omnima

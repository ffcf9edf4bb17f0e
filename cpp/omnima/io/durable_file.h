// A file written so that a crash or a full disk never costs the old one: aside, flushed, then
// renamed.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>

namespace omnima::io {

class DurableFile {
 public:
  // Opens a temporary file beside `path`.
  explicit DurableFile(std::filesystem::path path);
  // Removes the temporary file unless commit() was reached.
  ~DurableFile();
  DurableFile(const DurableFile&) = delete;
  DurableFile& operator=(const DurableFile&) = delete;

  void write(const void* data, std::size_t size);
  // Flushes to the disk, takes the place of `path`, and flushes the directory.
  void commit();

 private:
  [[noreturn]] void fail(const char* what) const;

  std::filesystem::path path_;
  std::string aside_;
  int file_ = -1;
};

}  // namespace omnima::io

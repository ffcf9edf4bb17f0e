// A file mapped into memory, private and copy-on-write: whoever writes into it never changes the
// file.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string_view>

namespace omnima::io {

class Mapping {
 public:
  // Throws DataError for what is not a readable, non-empty regular file.
  static std::shared_ptr<Mapping> open(const std::filesystem::path& path);
  ~Mapping();
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  char* data() const { return data_; }
  std::size_t size() const { return size_; }
  std::string_view bytes() const { return {data_, size_}; }

 private:
  Mapping(char* data, std::size_t size) : data_(data), size_(size) {}
  char* data_;
  std::size_t size_;
};

}  // namespace omnima::io

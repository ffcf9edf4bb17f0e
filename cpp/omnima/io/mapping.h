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

  // The file will be read soon: it is on its way into memory from now on.
  void read_ahead() const;
  // The same for these bytes, which are there, in the process's own pages, when it returns.
  void read_now(std::size_t begin, std::size_t bytes) const;
  // Of any mapping that holds this memory: it has been read and leaves the process; used once more
  // it is read from the file, and what was written into it is lost. Other memory is left alone.
  static void forget(const void* memory, std::size_t bytes);

 private:
  Mapping(char* data, std::size_t size);
  char* data_;
  std::size_t size_;
};

}  // namespace omnima::io

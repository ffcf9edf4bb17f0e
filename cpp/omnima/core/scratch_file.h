// Memory that lies in a file without a name: more than a machine holds may be kept in it, and it is
// gone with its last user, also after a kill.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>

namespace omnima::core {

class ScratchFile {
 public:
  // Zeros, in a directory on whose disk the room is reserved at once; throws ConfigError where that
  // is not possible.
  static std::shared_ptr<ScratchFile> create(const std::filesystem::path& directory,
                                             std::size_t bytes);
  ~ScratchFile();
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;

  char* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  friend void read_ahead(const void* memory, std::size_t bytes);
  friend void let_go(const void* memory, std::size_t bytes);
  ScratchFile(int file, char* data, std::size_t size);

  int file_;
  char* data_;
  std::size_t size_;
};

// These two change no contents and do nothing for memory that lies in no ScratchFile.
// The memory will be used soon: what is not in memory is on its way from now on.
void read_ahead(const void* memory, std::size_t bytes);
// The memory will not be used for a while: it no longer counts as the process's own, and the system
// may write it to the disk and take its place.
void let_go(const void* memory, std::size_t bytes);

// Memory of any kind has been read and is not used again soon, so it may leave the process; what
// comes from a file is read from there if it is used once more. It changes no contents.
void page_out(const void* memory, std::size_t bytes);

}  // namespace omnima::core

// Pages of a shared mapping live in the system's cache of the file: taking them out of the process
// loses nothing. When they are written, and when the cache gives them up, is the system's to say:
// with memory to spare a disk need not be waited for (1 GB a step: 0.15 s, and 1 to 1.7 s where
// each slice was written and dropped at once).
#include "omnima/core/scratch_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "omnima/core/error.h"

namespace omnima::core {
namespace {

std::mutex files_mutex;
std::vector<const ScratchFile*> files;

std::size_t page_size() {
  static const auto size = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  return size;
}

// 0, or what went wrong.
int reserve(int file, std::size_t bytes) {
#ifdef __linux__
  return ::posix_fallocate(file, 0, static_cast<off_t>(bytes));
#else
  const std::vector<char> zeros(std::size_t{1} << 20);
  for (std::size_t at = 0; at < bytes;) {
    const std::size_t count = std::min(zeros.size(), bytes - at);
    const ssize_t written = ::pwrite(file, zeros.data(), count, static_cast<off_t>(at));
    if (written < 0 && errno != EINTR) return errno;
    at += static_cast<std::size_t>(std::max<ssize_t>(written, 0));
  }
  return 0;
#endif
}

[[noreturn]] void refuse(const std::filesystem::path& directory, std::size_t bytes, int error) {
  std::error_code unknown;
  const auto space = std::filesystem::space(directory, unknown);
  const std::string room =
      unknown ? "" : message(" (", space.available >> 20, " MiB are free there)");
  throw ConfigError(message("The directory ", directory.string(), " cannot take a file of ",
                            (bytes >> 20) + 1, " MiB: ", std::strerror(error), room,
                            ". Name an existing directory on a fast disk with enough room."));
}

// The whole pages that hold a range, as an offset in a file and a size; first the file.
struct Pages {
  const ScratchFile* file = nullptr;
  std::size_t first = 0, bytes = 0;
};

Pages pages_of(const void* memory, std::size_t bytes) {
  const auto* from = static_cast<const char*>(memory);
  const std::lock_guard lock(files_mutex);
  for (const ScratchFile* file : files) {
    if (from < file->data() || from >= file->data() + file->size()) continue;
    const auto at = static_cast<std::size_t>(from - file->data());
    const std::size_t first = at / page_size() * page_size();
    return {file, first, std::min(at + bytes, file->size()) - first};
  }
  return {};
}

}  // namespace

ScratchFile::ScratchFile(int file, char* data, std::size_t size)
    : file_(file), data_(data), size_(size) {
  const std::lock_guard lock(files_mutex);
  files.push_back(this);
}

ScratchFile::~ScratchFile() {
  {
    const std::lock_guard lock(files_mutex);
    files.erase(std::find(files.begin(), files.end(), this));
  }
  ::munmap(data_, size_);
  ::close(file_);
}

std::shared_ptr<ScratchFile> ScratchFile::create(const std::filesystem::path& directory,
                                                 std::size_t bytes) {
  std::string name = (directory / ".omnima-scratch-XXXXXX").string();
  const int file = ::mkostemp(name.data(), O_CLOEXEC);
  if (file < 0) refuse(directory, bytes, errno);
  ::unlink(name.c_str());  // from here on the system clears up, whatever happens
  bytes = std::max<std::size_t>(bytes, 1);
  int error = reserve(file, bytes);
  void* data = MAP_FAILED;
  if (error == 0) {
    data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (data == MAP_FAILED) error = errno;
  }
  if (error != 0) {
    ::close(file);
    refuse(directory, bytes, error);
  }
  return std::shared_ptr<ScratchFile>(new ScratchFile(file, static_cast<char*>(data), bytes));
}

void read_ahead(const void* memory, std::size_t bytes) {
  const Pages pages = pages_of(memory, bytes);
  if (pages.file == nullptr) return;
  // Advice: a system that does not take it reads when the memory is touched.
  static_cast<void>(::madvise(pages.file->data_ + pages.first, pages.bytes, MADV_WILLNEED));
}

void let_go(const void* memory, std::size_t bytes) {
  const Pages pages = pages_of(memory, bytes);
  if (pages.file == nullptr) return;
#ifdef __linux__
  constexpr int kAdvice = MADV_DONTNEED;  // loses nothing here, unlike in memory without a file
#else
  constexpr int kAdvice = POSIX_MADV_DONTNEED;
#endif
  static_cast<void>(::madvise(pages.file->data_ + pages.first, pages.bytes, kAdvice));
}

void page_out(const void* memory, std::size_t bytes) {
#ifdef MADV_PAGEOUT
  const auto start = reinterpret_cast<std::uintptr_t>(memory);
  const std::uintptr_t from = start / page_size() * page_size();
  // A system that does not take the advice keeps the memory.
  static_cast<void>(::madvise(reinterpret_cast<void*>(from), start + bytes - from, MADV_PAGEOUT));
#else
  static_cast<void>(memory);
  static_cast<void>(bytes);
#endif
}

}  // namespace omnima::core

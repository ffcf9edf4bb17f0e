#include "omnima/io/mapping.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>

#include "omnima/core/error.h"

namespace omnima::io {

using core::DataError;
using core::require;

namespace {

std::mutex live_mutex;
std::map<const char*, std::size_t> live;  // where each mapping begins, and its size

}  // namespace

std::shared_ptr<Mapping> Mapping::open(const std::filesystem::path& path) {
  const std::string name = path.string();
  // O_NONBLOCK: a named pipe is refused below, not waited for.
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  require<DataError>(file >= 0, name, " cannot be opened: ", std::strerror(errno), ".");
  struct Closer {
    int file;
    ~Closer() { ::close(file); }
  } closer{file};
  struct stat status {};
  require<DataError>(::fstat(file, &status) == 0, name, " cannot be read: ", std::strerror(errno),
                     ".");
  require<DataError>(S_ISREG(status.st_mode), name, " is not a file.");
  require<DataError>(status.st_size > 0, name, " is empty (0 bytes).");
  const auto size = static_cast<std::size_t>(status.st_size);
  void* data = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
  require<DataError>(data != MAP_FAILED, name,
                     " cannot be mapped into memory: ", std::strerror(errno), ".");
  return std::shared_ptr<Mapping>(new Mapping(static_cast<char*>(data), size));
}

Mapping::Mapping(char* data, std::size_t size) : data_(data), size_(size) {
  const std::lock_guard lock(live_mutex);
  live[data] = size;
}

Mapping::~Mapping() {
  {
    const std::lock_guard lock(live_mutex);
    live.erase(data_);
  }
  ::munmap(data_, size_);
}

// Advice: a system that does not take it reads when the memory is touched, and keeps it.
void Mapping::read_ahead() const { static_cast<void>(::madvise(data_, size_, MADV_WILLNEED)); }

void Mapping::read_now(std::size_t begin, std::size_t bytes) const {
#ifdef MADV_POPULATE_READ
  bytes = std::min(bytes, size_ - std::min(begin, size_));
  static_cast<void>(::madvise(data_ + begin, bytes, MADV_POPULATE_READ));
#else
  static_cast<void>(begin), static_cast<void>(bytes);
#endif
}

void Mapping::forget(const void* memory, std::size_t bytes) {
  const auto* from = static_cast<const char*>(memory);
  const std::lock_guard lock(live_mutex);
  const auto after = live.upper_bound(from);
  if (after == live.begin()) return;
  const auto& [begin, size] = *std::prev(after);
  if (from + bytes > begin + size) return;
  // Whole pages; a neighbour's part of the first and the last one is read again.
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t first = static_cast<std::size_t>(from - begin) / page * page;
  const std::size_t last = static_cast<std::size_t>(from - begin) + bytes;
  static_cast<void>(::madvise(const_cast<char*>(begin) + first, last - first, MADV_DONTNEED));
}

}  // namespace omnima::io

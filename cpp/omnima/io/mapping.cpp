#include "omnima/io/mapping.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "omnima/core/error.h"

namespace omnima::io {

using core::DataError;
using core::require;

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

Mapping::~Mapping() { ::munmap(data_, size_); }

}  // namespace omnima::io

#include "omnima/io/durable_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "omnima/core/error.h"

namespace omnima::io {
namespace {

// One write call takes at most about 2 GiB; smaller pieces also let a full disk show early.
constexpr std::size_t kPiece = std::size_t{64} << 20;

std::filesystem::path folder_of(const std::filesystem::path& path) {
  return path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
}

mode_t usual_mode() {
  const mode_t mask = ::umask(0);
  ::umask(mask);
  return 0666 & ~mask;
}

}  // namespace

DurableFile::DurableFile(std::filesystem::path path) : path_(std::move(path)) {
  aside_ = (folder_of(path_) / ("." + path_.filename().string() + ".aside-XXXXXX")).string();
  file_ = ::mkostemp(aside_.data(), O_CLOEXEC);
  if (file_ < 0) fail("be created");
}

DurableFile::~DurableFile() {
  if (file_ < 0) return;
  ::close(file_);
  ::unlink(aside_.c_str());
}

void DurableFile::fail(const char* what) const {
  const int error = errno;
  throw core::Error(core::message(path_.string(), " could not ", what, ": ", std::strerror(error),
                                  error == ENOSPC || error == EDQUOT || error == EFBIG
                                      ? ". Free some space or choose another disk"
                                      : "",
                                  "; a file that was there before is unchanged."));
}

void DurableFile::write(const void* data, std::size_t size) {
  const char* next = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = ::write(file_, next, std::min(size, kPiece));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail("be written");
    next += written;
    size -= static_cast<std::size_t>(written);
  }
}

void DurableFile::commit() {
  if (::fchmod(file_, usual_mode()) != 0 || ::fsync(file_) != 0) fail("be flushed to the disk");
  if (::rename(aside_.c_str(), path_.c_str()) != 0) fail("be renamed into place");
  ::close(file_);
  file_ = -1;
  const int folder = ::open(folder_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) fail("have its directory flushed to the disk");
  const int result = ::fsync(folder);
  const int error = errno;
  ::close(folder);
  errno = error;
  // Some network and overlay file systems have no directory flush; they say EINVAL.
  if (result != 0 && error != EINVAL) fail("have its directory flushed to the disk");
}

}  // namespace omnima::io

// Memory-mapped shards: sizes are checked before anything is read.
#include "omnima/data/token_stream.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "omnima/core/error.h"

namespace omnima::data {

using core::DataError;
using core::require;

MappedFile::MappedFile(const std::string& path, std::uint64_t expected_bytes) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  require<DataError>(file >= 0, path, ": cannot be opened (", std::strerror(errno),
                     "); prepare the data again.");
  struct stat status {};
  const bool known = ::fstat(file, &status) == 0;
  const auto size = known ? static_cast<std::uint64_t>(status.st_size) : 0;
  int error = 0;
  if (known && size == expected_bytes && size > 0) {
    void* address = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file, 0);
    error = errno;
    if (address != MAP_FAILED) {
      data_ = static_cast<const std::byte*>(address);
      bytes_ = size;
    }
  }
  ::close(file);
  require<DataError>(known && size == expected_bytes, path, ": holds ", size, " bytes instead of ",
                     expected_bytes, "; prepare the data again.");
  require<DataError>(size == 0 || data_ != nullptr, path, ": cannot be mapped into memory (",
                     std::strerror(error), ").");
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), bytes_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

TokenStream::TokenStream(std::span<const ShardFiles> shards, int width) : width_(width) {
  require<core::ConfigError>(width == 2 || width == 4, "width is ", width,
                             "; token ids take 2 or 4 bytes");
  std::uint64_t start = 0;
  constexpr std::uint64_t kMost = std::uint64_t{1} << 48;  // bytes and sums of all shards fit
  for (const ShardFiles& files : shards) {
    require<DataError>(files.num_tokens <= kMost && files.num_docs <= kMost, files.tokens,
                       ": claims ", files.num_tokens, " tokens and ", files.num_docs,
                       " documents; the manifest is damaged, prepare the data again.");
    starts_.push_back(start);
    start += files.num_tokens;
    shards_.push_back({MappedFile(files.tokens, files.num_tokens * width),
                       MappedFile(files.docs, files.num_docs * sizeof(std::uint64_t)),
                       files.num_docs});
  }
  starts_.push_back(start);
  require<DataError>(start > 0, "there is no token in the shards; give more data.");
}

void TokenStream::read(std::uint64_t start, std::span<std::int64_t> out) const {
  require<DataError>(start <= size() && out.size() <= size() - start, "tokens ", start, "..",
                     start + out.size(), " asked of a stream of ", size());
  auto shard =
      static_cast<std::size_t>(std::ranges::upper_bound(starts_, start) - starts_.begin() - 1);
  for (std::size_t done = 0; done < out.size(); ++shard) {
    const std::uint64_t first = start + done - starts_[shard];
    const std::size_t count =
        std::min<std::uint64_t>(out.size() - done, starts_[shard + 1] - start - done);
    const std::byte* tokens = shards_[shard].tokens.data();
    if (width_ == 2) {
      const auto* ids = reinterpret_cast<const std::uint16_t*>(tokens) + first;
      std::copy_n(ids, count, out.begin() + static_cast<std::ptrdiff_t>(done));
    } else {
      const auto* ids = reinterpret_cast<const std::uint32_t*>(tokens) + first;
      std::copy_n(ids, count, out.begin() + static_cast<std::ptrdiff_t>(done));
    }
    done += count;
  }
}

std::vector<std::uint64_t> TokenStream::document_ends() const {
  std::vector<std::uint64_t> ends;
  std::uint64_t last = 0;
  for (std::size_t shard = 0; shard < shards_.size(); ++shard) {
    const auto* local = reinterpret_cast<const std::uint64_t*>(shards_[shard].docs.data());
    for (std::uint64_t doc = 0; doc < shards_[shard].num_docs; ++doc) {
      const std::uint64_t end = starts_[shard] + local[doc];
      require<DataError>(end > last && end <= starts_[shard + 1], "document ", doc, " of shard ",
                         shard, " ends at token ", end, ", not after ", last,
                         "; the shard is damaged, prepare the data again.");
      ends.push_back(last = end);
    }
  }
  if (last < size()) ends.push_back(size());
  return ends;
}

}  // namespace omnima::data

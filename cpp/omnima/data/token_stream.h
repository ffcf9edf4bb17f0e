// Token shards seen as one stream: files mapped into memory, ids read from any position.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace omnima::data {

// A file mapped read-only; its pages are shared and need no memory of the process.
class MappedFile {
 public:
  MappedFile(const std::string& path, std::uint64_t expected_bytes);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  MappedFile& operator=(MappedFile&&) = delete;

  const std::byte* data() const { return data_; }

 private:
  const std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

struct ShardFiles {
  std::string tokens;            // path: ids, little-endian
  std::string docs;              // path: uint64 end of each document, from the shard's first token
  std::uint64_t num_tokens = 0;  // what the files must hold
  std::uint64_t num_docs = 0;
};

class TokenStream {
 public:
  // width: bytes of an id, 2 or 4.
  TokenStream(std::span<const ShardFiles> shards, int width);

  std::uint64_t size() const { return starts_.back(); }
  // Copies ids [start, start + out.size()) of the stream.
  void read(std::uint64_t start, std::span<std::int64_t> out) const;
  // End of every document in the stream; the last is size() even where a document goes on.
  std::vector<std::uint64_t> document_ends() const;

 private:
  struct Shard {
    MappedFile tokens;
    MappedFile docs;
    std::uint64_t num_docs;
  };
  std::vector<Shard> shards_;
  std::vector<std::uint64_t> starts_;  // first token of each shard, then the size
  int width_;
};

}  // namespace omnima::data

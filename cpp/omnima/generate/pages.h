// Memory for keys and values in pages of one size, which texts may share (Kwon et al. 2023).
#pragma once

#include <cstdint>
#include <memory>

namespace omnima::generate {

// Tokens of a text whose keys and values lie in one page.
inline constexpr std::int64_t kPageTokens = 32;
constexpr std::int64_t pages_for(std::int64_t tokens) {
  return (tokens + kPageTokens - 1) / kPageTokens;
}

// Goes back to its pool when nobody holds it, and may outlive the pool.
using Page = std::shared_ptr<std::uint8_t>;

// For any number of threads.
class PagePool {
 public:
  // At most `max_pages` at once; 0: as many as memory has.
  explicit PagePool(std::int64_t page_bytes, std::int64_t max_pages = 0);

  // A page whose bytes may be anything, at a multiple of 64. Throws core::Error where all are in
  // use, std::bad_alloc where memory is.
  Page take();

  std::int64_t page_bytes() const;
  std::int64_t max_pages() const;
  std::int64_t in_use() const;

 private:
  struct Memory;
  std::shared_ptr<Memory> memory_;
};

}  // namespace omnima::generate

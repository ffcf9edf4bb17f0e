#include "omnima/generate/pages.h"

#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

#include "omnima/core/error.h"

namespace omnima::generate {

struct PagePool::Memory {
  Memory(std::int64_t bytes, std::int64_t pages) : page_bytes(bytes), max_pages(pages) {}
  ~Memory() {
    for (std::uint8_t* page : free) std::free(page);
  }

  std::uint8_t* take() {
    const std::lock_guard lock(mutex);
    core::require(max_pages == 0 || in_use < max_pages, "All ", max_pages,
                  " pages of keys and values are in use.");
    std::uint8_t* page = nullptr;
    if (free.empty()) {
      page =
          static_cast<std::uint8_t*>(std::aligned_alloc(64, static_cast<std::size_t>(page_bytes)));
      if (page == nullptr) throw std::bad_alloc();
    } else {
      page = free.back();
      free.pop_back();
    }
    ++in_use;
    return page;
  }

  void put_back(std::uint8_t* page) noexcept {
    const std::lock_guard lock(mutex);
    --in_use;
    // Without a limit nothing says how many will be needed again.
    if (max_pages == 0 || std::ssize(free) >= max_pages) return std::free(page);
    free.push_back(page);
  }

  const std::int64_t page_bytes, max_pages;
  std::mutex mutex;
  std::int64_t in_use = 0;
  std::vector<std::uint8_t*> free;
};

PagePool::PagePool(std::int64_t page_bytes, std::int64_t max_pages)
    : memory_(std::make_shared<Memory>((page_bytes + 63) / 64 * 64, max_pages)) {
  // So that putting one back never allocates.
  if (max_pages > 0) memory_->free.reserve(static_cast<std::size_t>(max_pages));
}

Page PagePool::take() {
  return {memory_->take(), [memory = memory_](std::uint8_t* page) { memory->put_back(page); }};
}

std::int64_t PagePool::page_bytes() const { return memory_->page_bytes; }
std::int64_t PagePool::max_pages() const { return memory_->max_pages; }

std::int64_t PagePool::in_use() const {
  const std::lock_guard lock(memory_->mutex);
  return memory_->in_use;
}

}  // namespace omnima::generate

// Memory that grows and is used again: a thread's workspace between calls.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

#include "omnima/core/huge_pages.h"

namespace omnima::core {

class Buffer {
 public:
  // At least `bytes`, aligned to 64; what it held before is lost when it grows.
  void* get(std::size_t bytes) {
    if (bytes > bytes_) {
      memory_.reset();
      bytes_ = (bytes + kAlign - 1) / kAlign * kAlign;
      memory_.reset(std::aligned_alloc(kAlign, bytes_));
      if (memory_ == nullptr) {
        bytes_ = 0;
        throw std::bad_alloc();
      }
      prefer_huge_pages(memory_.get(), bytes_);
    }
    return memory_.get();
  }

 private:
  static constexpr std::size_t kAlign = 64;
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::unique_ptr<void, Free> memory_;
  std::size_t bytes_ = 0;
};

}  // namespace omnima::core

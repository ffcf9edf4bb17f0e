// How threads treat numbers too small to be normal.
#pragma once

#include <ATen/Parallel.h>

#include <atomic>
#include <limits>

namespace omnima {

inline bool keeps_denormals() {
  volatile float tiny = std::numeric_limits<float>::min();
  return tiny * 0.5f > 0.0f;
}

// On how many of at::parallel_for's threads denormals are kept.
inline int threads_that_keep() {
  std::atomic<int> count{0};
  at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t, int64_t) {
    if (keeps_denormals()) ++count;
  });
  return count;
}

class WithThreads {
 public:
  explicit WithThreads(int count) : before_(at::get_num_threads()) { at::set_num_threads(count); }
  ~WithThreads() { at::set_num_threads(before_); }

 private:
  int before_;
};

}  // namespace omnima

#include "omnima/train/flush_denormals.h"

#include <ATen/Parallel.h>

namespace omnima::train {
namespace {

// Calls visit(i) once on each thread of at::parallel_for, with the same i whenever it is called
// from this thread. Within a parallel section there is one thread, the caller's.
template <class F>
void on_all_threads(std::size_t count, const F& visit) {
  at::parallel_for(0, static_cast<int64_t>(count), 1,
                   [&](int64_t begin, int64_t) { visit(static_cast<std::size_t>(begin)); });
}

}  // namespace

FlushDenormals::FlushDenormals() : threads_(static_cast<std::size_t>(at::get_num_threads())) {
  on_all_threads(threads_.size(), [&](std::size_t i) { threads_[i].emplace(); });
}

FlushDenormals::~FlushDenormals() {
  on_all_threads(threads_.size(), [&](std::size_t i) { threads_[i].reset(); });
}

}  // namespace omnima::train

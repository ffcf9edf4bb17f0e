// Threads that spin for a moment between parallel sections, then sleep.
#include "omnima/generate/team.h"

#include <algorithm>

#ifdef __SSE__
#include <xmmintrin.h>
#endif

#include "omnima/core/flush_denormals.h"
#include "omnima/core/scope.h"

namespace omnima::generate {
namespace {

constexpr int kSpins = 20000;            // about 0.3 ms awake before a worker sleeps
constexpr int kSpinsBeforeYield = 2000;  // then let others have the core between looks

void pause(int spin) {
  if (spin >= kSpinsBeforeYield && spin % 64 == 0) {
    std::this_thread::yield();
    return;
  }
#ifdef __SSE__
  _mm_pause();
#endif
}

}  // namespace

Team::Team(int threads) : shares_(static_cast<std::size_t>(std::max(threads, 1))) {
  for (int thread = 1; thread < threads; ++thread) {
    workers_.emplace_back([this, thread] { work(thread); });
  }
}

Team::~Team() {
  stop_ = true;
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  for (auto& worker : workers_) worker.join();
}

void Team::run(std::int64_t count, std::int64_t grain, const Body& body) {
  if (workers_.empty() || count <= grain) {
    if (count > 0) body(0, count, 0);
    return;
  }
  count_ = count;
  grain_ = std::max<std::int64_t>(grain, 1);
  body_ = &body;
  const std::int64_t pieces = (count + grain_ - 1) / grain_;
  for (int thread = 0; thread < size(); ++thread) {
    Share& share = shares_[static_cast<std::size_t>(thread)];
    share.next.store(pieces * thread / size(), std::memory_order_relaxed);
    share.end = pieces * (thread + 1) / size();
  }
  busy_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  take_pieces(0);
  const core::Scope scope("waiting");
  for (int spin = 0; busy_.load(std::memory_order_acquire) > 0; ++spin) pause(spin);
}

void Team::take_pieces(int thread) {
  for (int i = 0; i < size(); ++i) {
    Share& share = shares_[static_cast<std::size_t>((thread + i) % size())];
    for (;;) {
      const std::int64_t piece = share.next.fetch_add(1, std::memory_order_relaxed);
      if (piece >= share.end) break;
      const std::int64_t begin = piece * grain_;
      (*body_)(begin, std::min(begin + grain_, count_), thread);
    }
  }
}

void Team::work(int thread) {
  const core::FlushDenormals flush;
  std::uint64_t seen = 0;
  for (;;) {
    int spin = 0;
    while (round_.load(std::memory_order_acquire) == seen) {
      if (++spin < kSpins) {
        pause(spin);
      } else {
        round_.wait(seen, std::memory_order_acquire);
      }
    }
    ++seen;
    if (stop_) return;
    take_pieces(thread);
    busy_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace omnima::generate

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

// A share's state: 24 bits of the round, 20 of its end, 20 of the next piece.
constexpr int kBits = 20;
constexpr std::int64_t kMost = (1 << kBits) - 1;

std::uint64_t state_of(std::uint64_t round, std::int64_t next, std::int64_t end) {
  return round << 2 * kBits | static_cast<std::uint64_t>(end) << kBits |
         static_cast<std::uint64_t>(next);
}

std::int64_t next_of(std::uint64_t state) { return static_cast<std::int64_t>(state) & kMost; }

bool has_piece(std::uint64_t state, std::uint64_t round) {
  return state >> 2 * kBits == (round << 2 * kBits) >> 2 * kBits &&
         next_of(state) < next_of(state >> kBits);
}

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
  grain_ = std::max({grain, std::int64_t{1}, (count + kMost - 1) / kMost});
  body_ = &body;
  done_.store(0, std::memory_order_relaxed);
  const std::int64_t pieces = (count + grain_ - 1) / grain_;
  const std::uint64_t round = round_.load(std::memory_order_relaxed) + 1;
  for (int thread = 0; thread < size(); ++thread) {
    const std::int64_t next = pieces * thread / size(), end = pieces * (thread + 1) / size();
    shares_[static_cast<std::size_t>(thread)].state.store(state_of(round, next, end),
                                                          std::memory_order_release);
  }
  round_.store(round, std::memory_order_release);
  round_.notify_all();
  const std::int64_t mine = take_pieces(round, 0);
  const core::Scope scope("waiting");
  for (int spin = 0; mine + done_.load(std::memory_order_acquire) < pieces; ++spin) pause(spin);
}

std::int64_t Team::take_pieces(std::uint64_t round, int thread) {
  std::int64_t done = 0;
  for (int i = 0; i < size(); ++i) {
    auto& share = shares_[static_cast<std::size_t>((thread + i) % size())].state;
    std::uint64_t state = share.load(std::memory_order_acquire);
    while (has_piece(state, round)) {
      // Else `state` becomes what it is now.
      if (!share.compare_exchange_weak(state, state + 1, std::memory_order_acquire)) continue;
      const std::int64_t begin = next_of(state) * grain_;
      (*body_)(begin, std::min(begin + grain_, count_), thread);
      ++done;
      state = share.load(std::memory_order_acquire);
    }
  }
  return done;
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
    seen = round_.load(std::memory_order_acquire);
    if (stop_) return;
    const std::int64_t done = take_pieces(seen, thread);
    if (done > 0) done_.fetch_add(done, std::memory_order_release);
  }
}

}  // namespace omnima::generate

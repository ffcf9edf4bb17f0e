#include "omnima/core/scope.h"

#include <chrono>
#include <mutex>
#include <utility>

namespace omnima::core {
namespace {

using Clock = std::chrono::steady_clock;

std::mutex mutex;
std::vector<Span> spans;             // guarded by the mutex
std::atomic<std::int64_t> epoch{0};  // nanoseconds of the clock at the start
std::atomic<std::int64_t> team{1};

std::int64_t now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch())
      .count();
}

std::int64_t thread_number() {
  static std::atomic<std::int64_t> next{0};
  thread_local const std::int64_t number = next.fetch_add(1);
  return number;
}

}  // namespace

namespace detail {

std::atomic<bool> recording{false};

void open_span(Span& span) {
  span.thread = thread_number();
  span.team = team.load(std::memory_order_relaxed);
  span.begin = now() - epoch.load(std::memory_order_relaxed);
}

void close_span(Span& span) {
  span.end = now() - epoch.load(std::memory_order_relaxed);
  const std::lock_guard lock(mutex);
  // A scope that was open when its recording ended, or even before this one began, is none of it.
  if (recording.load(std::memory_order_relaxed) && span.begin >= 0) spans.push_back(span);
}

}  // namespace detail

void start_recording() {
  const std::lock_guard lock(mutex);
  spans.clear();
  epoch.store(now());
  detail::recording.store(true);
}

std::vector<Span> stop_recording() {
  const std::lock_guard lock(mutex);
  detail::recording.store(false);
  return std::move(spans);
}

ScopeTeam::ScopeTeam(std::int64_t threads) : before_(team.exchange(threads)) {}
ScopeTeam::~ScopeTeam() { team.store(before_); }

}  // namespace omnima::core

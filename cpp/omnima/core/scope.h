// Named spans of work with what they compute and move, for `omnima profile`. While nothing records,
// a scope costs one relaxed load.
//
//   const core::Scope scope("linear.forward", 2.0 * rows * in * out, bytes);
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

namespace omnima::core {

// One scope as it was recorded; times in nanoseconds since start_recording().
struct Span {
  const char* name = "";  // "<operator>.forward", "<operator>.backward" or a phase of the step
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t thread = 0;
  std::int64_t team = 1;  // threads that worked side by side, each with spans of its own
  double flops = 0;       // what the operator computes, products only
  double bytes = 0;       // what it must read and write at least
};

void start_recording();
// The spans since start_recording(), in the order in which they ended.
std::vector<Span> stop_recording();

namespace detail {
extern std::atomic<bool> recording;
void open_span(Span& span);
void close_span(Span& span);
}  // namespace detail

inline bool recording() { return detail::recording.load(std::memory_order_relaxed); }

// Records from its making to its end. The name must outlive the recording: a literal.
class Scope {
 public:
  explicit Scope(const char* name, double flops = 0, double bytes = 0) {
    if (!recording()) return;
    open_ = true;
    span_.name = name;
    span_.flops = flops;
    span_.bytes = bytes;
    detail::open_span(span_);
  }
  ~Scope() {
    if (open_) detail::close_span(span_);
  }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  bool open_ = false;
  Span span_;
};

// Says that until its end so many threads work side by side, each on a part of its own: the time of
// their scopes is then the time of one core among many.
class ScopeTeam {
 public:
  explicit ScopeTeam(std::int64_t threads);
  ~ScopeTeam();
  ScopeTeam(const ScopeTeam&) = delete;
  ScopeTeam& operator=(const ScopeTeam&) = delete;

 private:
  std::int64_t before_;
};

}  // namespace omnima::core

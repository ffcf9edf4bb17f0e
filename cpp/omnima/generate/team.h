// A few threads that stay awake through one generation: a token has dozens of parallel sections of
// some ten microseconds each, too short to wake a sleeping pool for.
#pragma once

#include <atomic>
#include <concepts>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <vector>

namespace omnima::generate {

class Team {
 public:
  // body(begin, end, thread): a piece of the range, and which of size() threads runs it. Refers to
  // what it is made from: a parallel section allocates nothing, and a temporary lives long enough.
  class Body {
   public:
    template <class F>
      requires(!std::same_as<F, Body>)
    Body(const F& function)
        : function_(&function),
          call_([](const void* f, std::int64_t begin, std::int64_t end, int thread) {
            (*static_cast<const F*>(f))(begin, end, thread);
          }) {}
    void operator()(std::int64_t begin, std::int64_t end, int thread) const {
      call_(function_, begin, end, thread);
    }

   private:
    const void* function_;
    void (*call_)(const void*, std::int64_t, std::int64_t, int);
  };

  explicit Team(int threads);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }
  // Runs body over 0..count in pieces of `grain` (more where there would be millions), on all
  // threads; returns when all is done. Each thread walks a share of its own from end to end, then
  // helps the others with theirs: one that is late is not waited for, only what one has begun. The
  // body must not throw.
  void run(std::int64_t count, std::int64_t grain, const Body& body);

 private:
  // Pieces that are one thread's to begin with. One number holds the round, the share's end and the
  // first piece that no thread has taken: who takes one knows that the round is not over, and it
  // cannot end before that piece is done.
  struct alignas(64) Share {
    std::atomic<std::uint64_t> state{0};
  };

  void work(int thread);
  // Returns how many it has done.
  std::int64_t take_pieces(std::uint64_t round, int thread);

  std::vector<std::thread> workers_;
  std::atomic<std::uint64_t> round_{0};  // grows by one a run; the workers wait for it
  std::atomic<std::int64_t> done_{0};    // pieces of the round that workers have done
  std::vector<Share> shares_;            // of the pieces, one a thread
  // Of the round; read by who has taken a piece of it.
  std::int64_t count_ = 0;
  std::int64_t grain_ = 1;
  const Body* body_ = nullptr;
  std::atomic<bool> stop_{false};  // a late worker may look at any time
};

}  // namespace omnima::generate

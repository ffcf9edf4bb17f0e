// One engine for many: requests come from any thread and wait for a place in the batch that a
// thread of the scheduler runs; what became of them is fetched in events.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "omnima/generate/batch.h"
#include "omnima/generate/engine.h"
#include "omnima/generate/request.h"

namespace omnima::generate {

struct SchedulerOptions {
  BatchOptions batch{};
  std::int64_t max_waiting = 128;  // requests beyond those in the batch
};

class Scheduler {
 public:
  // Refers to the engine. `constrain` is called by the scheduler's thread.
  Scheduler(const Engine& engine, SchedulerOptions options, Constrain constrain = {});
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // Returns its number. Throws ConfigError for a request that can never be answered, and
  // QueueFullError where too many wait.
  std::uint64_t submit(Request request);
  // False: it has ended, or there was none. Its last event says "cancelled".
  bool cancel(std::uint64_t request);
  // What happened since the last call; waits until something does, but not longer than this.
  std::vector<Event> events(std::chrono::duration<double> timeout);
  // Ends what is going on as cancelled, and the thread. Nothing can be submitted afterwards.
  void close();

  struct Stats {
    std::int64_t running = 0, waiting = 0;
    Batch::Memory memory{};
    Batch::Counts counts{};
    double busy_seconds = 0;  // spent in steps
  };
  Stats stats() const;

 private:
  struct Waiting {
    std::uint64_t id;
    std::int64_t turn;
    Request request;
  };

  void run();
  struct Client {
    std::int64_t open = 0;  // requests
    std::int64_t turn = 0;  // of its next request, in tokens
  };

  // Under the lock: lets requests in while there is a place.
  void admit();
  void leave(std::uint64_t request);
  void end_cancelled();
  void publish(std::vector<Event>& events);

  SchedulerOptions options_;
  Batch batch_;  // the thread's

  mutable std::mutex mutex_;
  std::condition_variable work_, news_;
  std::deque<Waiting> waiting_;
  std::unordered_map<std::uint64_t, std::uint64_t>
      open_;                                           // clients of requests that have not ended
  std::unordered_map<std::uint64_t, Client> clients_;  // who have such
  std::int64_t turn_ = 0;                              // of the request that entered last
  bool changed_ = false;  // the memory in use has, since the stats were taken
  std::unordered_set<std::uint64_t> to_cancel_;  // of those in the batch
  std::vector<Event> events_;
  std::uint64_t next_ = 1;
  bool closing_ = false;
  Stats stats_;

  std::mutex ending_;
  std::thread thread_;  // the last: it uses all of them
};

}  // namespace omnima::generate

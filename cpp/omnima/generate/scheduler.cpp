#include "omnima/generate/scheduler.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "omnima/core/error.h"

namespace omnima::generate {

using core::ConfigError;
using core::require;
using Clock = std::chrono::steady_clock;

Scheduler::Scheduler(const Engine& engine, SchedulerOptions options, Constrain constrain)
    : options_(std::move(options)), batch_(engine, options_.batch, std::move(constrain)) {
  require<ConfigError>(options_.max_waiting >= 0, "max_waiting is ", options_.max_waiting,
                       ": it is 0 or more.");
  stats_.memory = batch_.memory();
  thread_ = std::thread([this] { run(); });
}

Scheduler::~Scheduler() { close(); }

void Scheduler::close() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  work_.notify_all();
  news_.notify_all();
  const std::lock_guard lock(ending_);  // one thread joins, others wait for it
  if (thread_.joinable()) thread_.join();
}

std::uint64_t Scheduler::submit(Request request) {
  batch_.check(request);
  request.weights = batch_.weights_of(request);
  const std::lock_guard lock(mutex_);
  require<core::Error>(!closing_, "The scheduler is closed: it takes no more requests.");
  const auto waiting = std::ssize(waiting_);
  const std::int64_t free =
      std::max<std::int64_t>(0, options_.batch.max_sequences - stats_.running);
  require<core::QueueFullError>(waiting < options_.max_waiting + free, waiting,
                                " requests wait already, and no more may: try again later.");
  const std::uint64_t id = next_++;
  Client& client = clients_[request.client];
  ++client.open;
  const std::int64_t turn = std::max(client.turn, turn_);
  client.turn = turn + batch_.length_of(request);
  open_[id] = request.client;
  waiting_.push_back({id, turn, std::move(request)});
  work_.notify_one();
  return id;
}

bool Scheduler::cancel(std::uint64_t request) {
  const std::lock_guard lock(mutex_);
  if (!open_.contains(request)) return false;
  const auto is_it = [&](const Waiting& each) { return each.id == request; };
  if (std::erase_if(waiting_, is_it) > 0) {
    leave(request);
    events_.push_back({.request = request, .finish_reason = "cancelled"});
    news_.notify_all();
  } else {
    to_cancel_.insert(request);
    work_.notify_one();
  }
  return true;
}

std::vector<Event> Scheduler::events(std::chrono::duration<double> timeout) {
  constexpr std::chrono::duration<double> kMost{1e6};  // what a clock can add to its time
  const bool waits = timeout.count() > 0;              // false with NaN, too
  std::unique_lock lock(mutex_);
  news_.wait_for(lock, waits ? std::min(timeout, kMost) : timeout.zero(),
                 [&] { return !events_.empty() || closing_; });
  return std::exchange(events_, {});
}

Scheduler::Stats Scheduler::stats() const {
  const std::lock_guard lock(mutex_);
  Stats stats = stats_;
  stats.waiting = std::ssize(waiting_);
  return stats;
}

void Scheduler::run() {
  std::vector<Event> events;
  while (true) {
    {
      std::unique_lock lock(mutex_);
      work_.wait(lock, [&] {
        return closing_ || batch_.size() > 0 || !waiting_.empty() || !to_cancel_.empty();
      });
      if (closing_) break;
      end_cancelled();
      admit();
    }
    const auto start = Clock::now();
    if (batch_.size() > 0) {
      try {
        batch_.step(events);
      } catch (const std::exception& error) {
        batch_.fail(error.what(), events);
      }
    }
    const std::chrono::duration<double> taken = Clock::now() - start;
    const std::lock_guard lock(mutex_);
    stats_.busy_seconds += taken.count();
    publish(events);
  }
  const std::lock_guard lock(mutex_);
  for (const auto& [id, client] : open_) {
    batch_.cancel(id);
    events_.push_back({.request = id, .finish_reason = "cancelled"});
  }
  open_.clear();
  clients_.clear();
  waiting_.clear();
  publish(events);
}

void Scheduler::end_cancelled() {
  for (const std::uint64_t id : std::exchange(to_cancel_, {})) {
    // It may have ended by itself in the step meanwhile.
    if (!batch_.cancel(id)) continue;
    leave(id);
    events_.push_back({.request = id, .finish_reason = "cancelled"});
    news_.notify_all();
  }
}

// In the order of their turns, in which a client's next request stands behind its last one by as
// many tokens as that may have: one who asks for much does not hold up the others (start-time fair
// queueing, Goyal, Vin and Cheng 1997). One that waits for memory is not overtaken.
void Scheduler::admit() {
  while (!waiting_.empty()) {
    const auto place = std::ranges::min_element(waiting_, {}, &Waiting::turn);
    if (!batch_.has_place(place->request)) break;
    Waiting next = std::move(*place);
    waiting_.erase(place);
    turn_ = next.turn;
    changed_ = true;
    try {
      batch_.enter(next.id, std::move(next.request));
    } catch (const std::exception& error) {
      leave(next.id);
      events_.push_back({.request = next.id, .finish_reason = "error", .error = error.what()});
      news_.notify_all();
    }
  }
  stats_.running = batch_.size();
}

void Scheduler::leave(std::uint64_t request) {
  const auto open = open_.find(request);
  if (open == open_.end()) return;
  const auto client = clients_.find(open->second);
  if (--client->second.open == 0) clients_.erase(client);
  open_.erase(open);
  changed_ = true;
}

void Scheduler::publish(std::vector<Event>& events) {
  if (batch_.counts().prompt_tokens != stats_.counts.prompt_tokens) changed_ = true;
  for (Event& event : events) {
    if (!event.finish_reason.empty()) leave(event.request);
    // A text that is being cancelled says no more.
    if (event.finish_reason.empty() && to_cancel_.contains(event.request)) continue;
    events_.push_back(std::move(event));
  }
  events.clear();
  stats_.running = batch_.size();
  if (changed_) stats_.memory = batch_.memory();
  changed_ = false;
  stats_.counts = batch_.counts();
  if (!events_.empty()) news_.notify_all();
}

}  // namespace omnima::generate

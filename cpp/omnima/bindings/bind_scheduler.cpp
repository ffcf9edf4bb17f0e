// Writing for many at once: the scheduler.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <atomic>
#include <mutex>
#include <optional>
#include <set>

#include "omnima/bindings/bindings.h"
#include "omnima/generate/scheduler.h"

namespace omnima::bindings {
namespace {

using generate::Event;
using generate::Ids;
using generate::Scheduler;
using Values = std::map<std::string, core::FieldValue>;
using Top = std::vector<std::pair<std::int64_t, float>>;

// Calls Python once a step for all constrained texts. The masks are its only while it runs.
generate::Constrain calling(py::object function) {
  // Released under the lock, wherever the scheduler ends.
  const std::shared_ptr<py::object> held(new py::object(std::move(function)),
                                         [](py::object* object) {
                                           const py::gil_scoped_acquire lock;
                                           delete object;
                                         });
  return [held](std::span<const std::uint64_t> requests, std::span<const std::int64_t> newest,
                std::span<std::int32_t> masks) {
    const py::gil_scoped_acquire lock;
    const auto rows = static_cast<py::ssize_t>(requests.size());
    const py::array_t<std::int32_t> view({rows, static_cast<py::ssize_t>(masks.size()) / rows},
                                         masks.data(), py::none());
    py::list ids;
    for (const std::int64_t id : newest) {
      py::list each;
      if (id >= 0) each.append(id);
      ids.append(each);
    }
    try {
      return (*held)(std::vector<std::uint64_t>(requests.begin(), requests.end()), ids, view)
          .cast<std::vector<std::string>>();
    } catch (const std::exception& error) {
      return std::vector<std::string>(requests.size(),
                                      std::string("constrain failed: ") + error.what());
    }
  };
}

// The schedulers that are open: their threads must end before the interpreter does. Its lock is
// never taken while the interpreter's is held: who has it may wait for a thread that asks Python.
struct OpenOnes {
  std::mutex mutex;
  std::set<Scheduler*> all;
  std::atomic<bool> ended{false};
};

OpenOnes& open_ones() {
  static auto* const ones = new OpenOnes;  // outlives what runs at the end
  return *ones;
}

void close_all() {
  const py::gil_scoped_release unlock;
  const std::lock_guard lock(open_ones().mutex);
  open_ones().ended = true;
  for (Scheduler* scheduler : open_ones().all) scheduler->close();
}

struct Unlocked {
  void operator()(Scheduler* scheduler) const {
    const py::gil_scoped_release unlock;
    {
      const std::lock_guard lock(open_ones().mutex);
      open_ones().all.erase(scheduler);
    }
    delete scheduler;
  }
};
using Holder = std::unique_ptr<Scheduler, Unlocked>;

Holder make(const generate::Engine& engine, std::int64_t max_sequences, std::int64_t max_waiting,
            std::int64_t chunk_tokens, std::int64_t memory_bytes, std::int64_t kept_bytes,
            const std::string& prompt_precision, const std::string& cache_precision,
            const py::object& constrain) {
  generate::SchedulerOptions options;
  options.batch.max_sequences = max_sequences;
  options.batch.chunk_tokens = chunk_tokens;
  options.batch.memory_bytes = memory_bytes;
  options.batch.kept_bytes = kept_bytes;
  options.batch.prompt_precision = prompt_precision;
  options.batch.cache_precision = cache_precision;
  options.max_waiting = max_waiting;
  auto asks = constrain.is_none() ? generate::Constrain() : calling(constrain);
  Holder made;
  const py::gil_scoped_release unlock;
  made.reset(new Scheduler(engine, std::move(options), std::move(asks)));
  const std::lock_guard lock(open_ones().mutex);
  open_ones().all.insert(made.get());
  return made;
}

std::uint64_t submit(Scheduler& scheduler, Ids prompt, const Values& values, std::uint64_t seed,
                     Ids stop_ids, std::int64_t known_ids,
                     const std::optional<generate::Adapters>& adapters, std::int64_t top_logprobs,
                     bool constrained, std::uint64_t client,
                     std::map<std::int64_t, double> logit_bias) {
  generate::Request request;
  request.prompt = std::move(prompt);
  request.options = generate::GenerateOptions::from_values(values);
  request.options.seeds = {seed};
  request.options.stop_ids = std::move(stop_ids);
  request.options.known_ids = known_ids;
  request.options.logit_bias = std::move(logit_bias);
  request.adapters = adapters.value_or(nullptr);
  request.top_logprobs = top_logprobs;
  request.constrained = constrained;
  request.client = client;
  const py::gil_scoped_release unlock;
  return scheduler.submit(std::move(request));
}

py::list events(Scheduler& scheduler, double timeout) {
  std::vector<Event> found;
  {
    const py::gil_scoped_release unlock;
    found = scheduler.events(std::chrono::duration<double>(timeout));
    // The interpreter ends: a thread that came back to it now would end the process.
    while (open_ones().ended) std::this_thread::sleep_for(std::chrono::hours(1));
  }
  py::list all;
  for (Event& event : found) {
    std::vector<std::pair<float, Top>> logprobs;
    for (auto& each : event.logprobs) logprobs.emplace_back(each.logprob, std::move(each.top));
    all.append(py::make_tuple(event.request, std::move(event.ids), std::move(logprobs),
                              std::move(event.finish_reason), event.cached,
                              std::move(event.error)));
  }
  return all;
}

py::dict stats(const Scheduler& scheduler) {
  const Scheduler::Stats found = [&] {
    const py::gil_scoped_release unlock;
    return scheduler.stats();
  }();
  py::dict all;
  all["running"] = found.running;
  all["waiting"] = found.waiting;
  all["blocks_in_use"] = found.memory.texts;
  all["blocks_kept"] = found.memory.kept;
  all["blocks_total"] = found.memory.most;
  all["block_bytes"] = found.memory.page_bytes;
  all["steps"] = found.counts.steps;
  all["prompt_tokens"] = found.counts.prompt_tokens;
  all["cached_tokens"] = found.counts.cached_tokens;
  all["new_tokens"] = found.counts.new_tokens;
  all["busy_seconds"] = found.busy_seconds;
  return all;
}

}  // namespace

void bind_scheduler(py::module_& module) {
  py::module_::import("atexit").attr("register")(py::cpp_function(&close_all));
  py::class_<Scheduler, Holder>(
      module, "Scheduler",
      "One engine for many: requests join and leave at every token, in a thread of its own.")
      .def(py::init(&make), py::arg("engine"), py::arg("max_sequences") = 16,
           py::arg("max_waiting") = 128, py::arg("chunk_tokens") = generate::kPageTokens,
           py::arg("memory_bytes") = 0, py::arg("kept_bytes") = std::int64_t{256} << 20,
           py::arg("prompt_precision") = "fp32", py::arg("cache_precision") = "fp32",
           py::arg("constrain") = py::none(), py::keep_alive<1, 2>(),
           "Starts it. max_sequences: texts that are read and written at once; max_waiting: "
           "requests "
           "beyond those. chunk_tokens: of a piece of a prompt, a multiple of 32. "
           "memory_bytes: for keys and values, 0: no limit; kept_bytes: of these for pieces of "
           "prompts that later requests may begin with. constrain(requests, ids, "
           "masks) says which tokens may come next in constrained requests, once a step for all: "
           "ids are the newest of each, [] before its first; it sets the bits of masks [requests, "
           "words of 32 ids] and returns an error a request, \"\": none.")
      .def("submit", &submit, py::arg("prompt"), py::arg("options"), py::arg("seed") = 0,
           py::arg("stop_ids") = Ids{}, py::arg("known_ids") = 0, py::arg("adapters") = py::none(),
           py::arg("top_logprobs") = -1, py::arg("constrained") = false, py::arg("client") = 0,
           py::arg("logit_bias") = std::map<std::int64_t, double>{},
           "Returns the request's number. top_logprobs: the log-probability of each new token and "
           "of so many likeliest ones; -1: none. client: whose it is; clients take turns, by "
           "tokens. logit_bias: what is added to the logits of ids. "
           "ConfigError: it can never be answered; "
           "QueueFullError: too many wait.")
      .def("cancel", &Scheduler::cancel, py::arg("request"),
           py::call_guard<py::gil_scoped_release>(),
           "Ends a request within one token, by \"cancelled\"; False: it has ended.")
      .def(
          "events", &events, py::arg("timeout"),
          "What happened since the last call, waiting up to timeout seconds for the first: "
          "(request, new ids, [(logprob, [(id, logprob)])], finish reason, prompt tokens that were "
          "known, error). The reason is \"\" while it goes on, then \"eos\", \"length\", "
          "\"cancelled\" or \"error\".")
      .def("stats", &stats, "What runs, waits and was done.")
      .def("close", &Scheduler::close, py::call_guard<py::gil_scoped_release>(),
           "Ends all requests as cancelled, and the thread.");
}

}  // namespace omnima::bindings

// Every thread that computes takes denormals as zero during a step, and none of them afterwards.
#include "omnima/train/flush_denormals.h"

#include <ATen/Parallel.h>
#include <ATen/record_function.h>

#include <atomic>
#include <mutex>
#include <set>
#include <thread>

#include "../denormals.h"
#include "omnima/train/row_workers.h"
#include "step_fixture.h"

#if defined(__SSE__) || defined(__aarch64__)

namespace omnima::train {
namespace {

TEST(FlushDenormalsOfTraining, HoldsOnEveryThreadAndEndsOnEveryThread) {
  for (const int threads : {1, 2, 3}) {
    const WithThreads with(threads);
    EXPECT_EQ(threads_that_keep(), threads);
    {
      const FlushDenormals flush;
      EXPECT_EQ(threads_that_keep(), 0);
    }
    EXPECT_EQ(threads_that_keep(), threads);
  }
}

TEST(FlushDenormalsOfTraining, ACallerWhoFlushedGoesOnFlushing) {
  const WithThreads with(2);
  const core::FlushDenormals own;
  { const FlushDenormals flush; }
  EXPECT_FALSE(keeps_denormals());
  EXPECT_EQ(threads_that_keep(), 1);  // the other thread is as it was, too
}

TEST(FlushDenormalsOfTraining, InsideAParallelSectionItIsTheCallersOwn) {
  const WithThreads with(2);
  std::atomic<int> kept{0};
  at::parallel_for(0, 2, 1, [&](int64_t, int64_t) {
    {
      const FlushDenormals flush;
      kept += keeps_denormals();
    }
    if (!keeps_denormals()) ++kept;
  });
  EXPECT_EQ(kept, 0);
}

// What the threads of a step do, seen at every ATen operator and autograd node they run.
struct Seen {
  std::mutex mutex;
  std::set<std::thread::id> threads;
  int operators = 0, kept = 0;
};
Seen* seen = nullptr;

std::unique_ptr<at::ObserverContext> look(const at::RecordFunction&) {
  const std::lock_guard<std::mutex> lock(seen->mutex);
  seen->threads.insert(std::this_thread::get_id());
  ++seen->operators;
  seen->kept += keeps_denormals();
  return nullptr;
}

// Two rows on two threads are trained side by side; one row is worked on by both.
TEST(FlushDenormalsOfTraining, EveryOperatorOfAStepRunsUnderIt) {
  const WithThreads with(2);
  for (const std::int64_t rows : {1, 2}) {
    for (const char* precision : {"fp32", "bf16"}) {
      Seen all;
      seen = &all;
      TrainStep step(small(), options_with(precision));
      const auto batch = some_batch(rows, 8, 0);
      const auto handle = at::addGlobalCallback(at::RecordFunctionCallback(look));
      step.run_batches({batch});
      at::removeCallback(handle);
      EXPECT_GT(all.operators, 10);
      EXPECT_EQ(all.kept, 0) << precision << ", rows " << rows;
      EXPECT_GE(all.threads.size(), row_workers(rows, 1 << 16, at::kCPU)) << precision;
      EXPECT_EQ(threads_that_keep(), 2);
    }
  }
}

// A step that stops with an error leaves the threads as they were.
TEST(FlushDenormalsOfTraining, AnErrorEndsItToo) {
  const WithThreads with(2);
  auto model = small();
  model->arena().weights().fill_(NAN);
  TrainStep step(model, {});
  EXPECT_THROW(step.run_batches({some_batch(2, 8, 0)}), core::NonFiniteError);
  EXPECT_EQ(threads_that_keep(), 2);
}

}  // namespace
}  // namespace omnima::train

#endif

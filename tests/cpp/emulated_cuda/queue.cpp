// The queue of the emulated device: work runs at once, and what is "recorded" is the wish to run it
// again on memory that stays where it is.
#include "omnima/generate/cuda/queue.h"

#include <ATen/ops/empty.h>

#include "emulated_cuda/seams.h"
#include "omnima/core/error.h"

namespace omnima::generate::cuda {
namespace {

int recordings = 0;
bool refuses = false;

class Again final : public Queue::Recording {
 public:
  explicit Again(Queue::Work work) : work_(std::move(work)) {}
  void run() override { work_(); }

 private:
  Queue::Work work_;
};

class EmulatedQueue final : public Queue {
 public:
  void run(const Work& work) override { work(); }
  std::unique_ptr<Recording> record(const Work& work) override {
    if (refuses) throw core::Error("the emulated device takes no recordings");
    ++recordings;
    return std::make_unique<Again>(work);
  }
  void wait() override {}
  at::Tensor host_memory(std::int64_t bytes) override { return at::empty({bytes}, at::kByte); }
};

}  // namespace

int recorded_steps() { return recordings; }
void refuse_recordings(bool refuse) { refuses = refuse; }

std::unique_ptr<Queue> Queue::on(const at::Device&) { return std::make_unique<EmulatedQueue>(); }

}  // namespace omnima::generate::cuda

// A queue of work on the device, and pieces of work that are recorded once and run again. The tests
// have one that runs everything at once.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>

namespace omnima::generate::cuda {

class Queue {
 public:
  using Work = std::function<void()>;
  // What was recorded; run() puts it on the queue.
  class Recording {
   public:
    virtual ~Recording() = default;
    virtual void run() = 0;
  };

  // Its work comes after what the device was given before.
  static std::unique_ptr<Queue> on(const at::Device& device);
  virtual ~Queue() = default;  // waits

  // Calls `work`, whose launches go to the queue.
  virtual void run(const Work& work) = 0;
  // Calls `work` and keeps its launches instead of running them: they read and write the memory
  // that they name now. Throws where the device does not take it; the queue is as it was then.
  virtual std::unique_ptr<Recording> record(const Work& work) = 0;
  // Returns when all is done.
  virtual void wait() = 0;
  // Bytes of the host that the device reads and writes by itself.
  virtual at::Tensor host_memory(std::int64_t bytes) = 0;
};

}  // namespace omnima::generate::cuda

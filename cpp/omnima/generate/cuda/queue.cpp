// A stream of its own, CUDA graphs, and pinned memory.
#include "omnima/generate/cuda/queue.h"

#include <ATen/cuda/CUDAEvent.h>
#include <ATen/cuda/CUDAGraph.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <string>

#include "omnima/core/error.h"

namespace omnima::generate::cuda {
namespace {

using c10::cuda::CUDAStream;
using c10::cuda::CUDAStreamGuard;

class GraphRecording final : public Queue::Recording {
 public:
  GraphRecording(std::unique_ptr<at::cuda::CUDAGraph> graph, CUDAStream stream)
      : graph_(std::move(graph)), stream_(stream) {}
  void run() override {
    const CUDAStreamGuard guard(stream_);
    graph_->replay();
  }

 private:
  std::unique_ptr<at::cuda::CUDAGraph> graph_;
  CUDAStream stream_;
};

class StreamQueue final : public Queue {
 public:
  explicit StreamQueue(const at::Device& device)
      : stream_(c10::cuda::getStreamFromPool(/*isHighPriority=*/true, device.index())) {
    const c10::cuda::CUDAGuard guard(stream_.device_index());
    at::cuda::CUDAEvent before;
    before.record(c10::cuda::getCurrentCUDAStream(stream_.device_index()));
    before.block(stream_);
  }

  // Memory that queued work uses may be freed next.
  ~StreamQueue() override {
    try {
      stream_.synchronize();
    } catch (const std::exception&) {  // whoever uses the device next is told
    }
  }

  void run(const Work& work) override {
    const CUDAStreamGuard guard(stream_);
    work();
  }

  std::unique_ptr<Recording> record(const Work& work) override {
    const CUDAStreamGuard guard(stream_);
    stream_.synchronize();
    auto graph = std::make_unique<at::cuda::CUDAGraph>();
    // Other threads may go on using the device in ways that a capture in global mode forbids.
    graph->capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
    try {
      work();
    } catch (const std::exception& error) {
      abandon(*graph, error.what());
    }
    graph->capture_end();
    return std::make_unique<GraphRecording>(std::move(graph), stream_);
  }

  void wait() override { stream_.synchronize(); }

  at::Tensor host_memory(std::int64_t bytes) override {
    return at::empty({bytes}, at::TensorOptions(at::kByte).pinned_memory(true));
  }

 private:
  // A capture that failed must still be ended before the stream can be used again.
  [[noreturn]] static void abandon(at::cuda::CUDAGraph& graph, const std::string& why) {
    std::string also;
    try {
      graph.capture_end();
    } catch (const std::exception& error) {
      also = std::string("; ending it: ") + error.what();
    }
    throw core::Error(why + also);
  }

  CUDAStream stream_;
};

}  // namespace

std::unique_ptr<Queue> Queue::on(const at::Device& device) {
  return std::make_unique<StreamQueue>(device);
}

}  // namespace omnima::generate::cuda

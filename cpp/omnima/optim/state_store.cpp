#include "omnima/optim/state_store.h"

#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "omnima/core/error.h"
#include "omnima/core/scratch_file.h"

namespace omnima::optim {
namespace {

class Beside final : public StateStore {
 public:
  explicit Beside(const at::Device& device) : device_(device) {}
  at::Tensor zeros(int64_t count, at::ScalarType type) override {
    return at::zeros({count}, at::TensorOptions(type).device(device_));
  }
  void over(const Tensors& buffers, const Update& update, bool) override {
    update(0, buffers.front().numel(), buffers);
  }
  void fill(const at::Tensor& buffer, const at::Tensor& values) override {
    at::Tensor(buffer).copy_(values.view_as(buffer));
  }
  bool offloads() const override { return false; }

 private:
  const at::Device device_;
};

void let_go(const at::Tensor& part) { core::let_go(part.const_data_ptr(), part.nbytes()); }

// The kernels work on the files' memory itself; behind them slices are let go.
class InFiles final : public StateStore {
 public:
  InFiles(std::string directory, int64_t slice) : directory_(std::move(directory)), slice_(slice) {}

  at::Tensor zeros(int64_t count, at::ScalarType type) override {
    const auto bytes = static_cast<std::size_t>(count) * c10::elementSize(type);
    const auto file = core::ScratchFile::create(directory_, bytes);
    return at::from_blob(file->data(), {count}, [file](void*) {}, at::TensorOptions(type));
  }

  void over(const Tensors& buffers, const Update& update, bool whole) override {
    const int64_t total = buffers.front().numel(), most = whole ? total : slice_;
    Tensors parts(buffers.size());
    for (int64_t first = 0; first < total; first += most) {
      const int64_t count = std::min(most, total - first), after = first + count;
      for (std::size_t i = 0; i < buffers.size(); ++i) {
        parts[i] = buffers[i].narrow(0, first, count);
        const at::Tensor next = buffers[i].narrow(0, after, std::min(most, total - after));
        core::read_ahead(next.const_data_ptr(), next.nbytes());
      }
      update(first, count, parts);
      for (const auto& part : parts) let_go(part);
    }
  }

  void fill(const at::Tensor& buffer, const at::Tensor& values) override {
    const at::Tensor flat = values.reshape({-1});
    const Update copy = [&](int64_t first, int64_t count, const Tensors& parts) {
      const at::Tensor part = flat.narrow(0, first, count);
      at::Tensor(parts[0]).copy_(part);
      if (part.is_cpu()) core::page_out(part.const_data_ptr(), part.nbytes());
    };
    over({buffer.view({-1})}, copy, /*whole=*/false);
  }

 private:
  const std::string directory_;
  const int64_t slice_;
};

}  // namespace

std::shared_ptr<StateStore> state_beside(const at::Device& device) {
  return std::make_shared<Beside>(device);
}

std::shared_ptr<StateStore> state_in_files(const std::string& directory, int64_t slice) {
  return std::make_shared<InFiles>(directory, slice);
}

std::shared_ptr<StateStore> make_state_store(const std::string& place, const at::Device& device) {
  if (place.empty()) return state_beside(device);
  const bool in_memory = place == "cpu";
  core::require<core::ConfigError>(
      !in_memory || !device.is_cpu(),
      "offload_optimizer cpu moves the optimizer's state from a GPU into the machine's memory, "
      "where it is already when training on the CPU: leave it out, or name a directory of a fast "
      "disk.");
  if (device.is_cpu()) return state_in_files(place);
  return state_staged(device, in_memory ? "" : place);
}

}  // namespace omnima::optim

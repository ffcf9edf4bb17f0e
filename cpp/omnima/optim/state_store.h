// Where the state of an optimizer lies between steps, and how an update passes over it: beside the
// weights, in the machine's memory while the weights are on a GPU, or in a file.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace omnima::optim {

class StateStore {
 public:
  using Tensors = std::vector<at::Tensor>;
  // Updates elements `first` to `first + count - 1` of what over() was asked for.
  using Update = std::function<void(int64_t first, int64_t count, const Tensors& parts)>;

  virtual ~StateStore() = default;
  // A flat buffer of zeros, to be read and written by over() and fill() only.
  virtual at::Tensor zeros(int64_t count, at::ScalarType type) = 0;
  // Calls update with slices of flat buffers of one length, or with all of them at once where they
  // are to stay `whole`; the parts are on the device of the weights, and what is written into them
  // stays.
  virtual void over(const Tensors& buffers, const Update& update, bool whole = false) = 0;
  // Copies values into a buffer; they have been used then, and may leave the memory.
  virtual void fill(const at::Tensor& buffer, const at::Tensor& values) = 0;
  // Waits until the buffers hold what the updates wrote.
  virtual void settle() {}
  virtual bool offloads() const { return true; }
};

// Elements of a slice: 4 MiB of float32, enough for threads, disks and links to be busy.
constexpr int64_t kSlice = int64_t{1} << 20;

// Beside the weights.
std::shared_ptr<StateStore> state_beside(const at::Device& device);
// In files of a directory, of which a few slices are in memory at a time. For weights on the CPU.
std::shared_ptr<StateStore> state_in_files(const std::string& directory, int64_t slice = kSlice);
// In the machine's memory (directory "") or in files, from where slices are copied to the device
// and back, beside the computation where the device has streams.
std::shared_ptr<StateStore> state_staged(const at::Device& device, const std::string& directory,
                                         int64_t slice = kSlice);

// place: "" for beside the weights, "cpu" for the machine's memory, or a directory.
std::shared_ptr<StateStore> make_state_store(const std::string& place, const at::Device& device);

}  // namespace omnima::optim

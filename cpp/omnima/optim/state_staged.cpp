// State that is brought to the weights' device slice by slice: while one slice of a span is
// updated, the next is on its way there and the last is on its way back. One span waits for the one
// before.
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <array>
#include <exception>
#include <optional>

#include "omnima/core/scratch_file.h"
#include "omnima/optim/state_store.h"

namespace omnima::optim {
namespace {

// The device's streams for both directions; on the CPU, which has none, everything happens at once
// and in order.
class Lanes {
 public:
  enum Lane { kIn, kCompute, kOut };

  explicit Lanes(const at::Device& device) : guard_(device.type()), device_(device) {
    if (device.is_cpu()) return;
    in_ = guard_.getStreamFromGlobalPool(device, /*isHighPriority=*/false);
    out_ = guard_.getStreamFromGlobalPool(device, /*isHighPriority=*/false);
  }
  c10::Stream stream(Lane lane) const {
    return lane == kIn ? *in_ : lane == kOut ? *out_ : guard_.getStream(device_);
  }
  bool any() const { return in_.has_value(); }

  template <class Work>
  void run(Lane lane, const Work& work) const {
    if (!any()) return work();
    const c10::StreamGuard on(stream(lane));
    work();
  }

 private:
  const c10::impl::VirtualGuardImpl guard_;
  const at::Device device_;
  std::optional<c10::Stream> in_, out_;
};

// A point in a lane that others, or the host, wait for.
class Mark {
 public:
  Mark(const Lanes& lanes, const at::Device& device) : lanes_(lanes) {
    if (lanes.any()) event_.emplace(device.type());
  }
  void set(Lanes::Lane lane) {
    if (event_) event_->record(lanes_.stream(lane));
  }
  void hold_up(Lanes::Lane lane) const {
    if (event_) event_->block(lanes_.stream(lane));
  }
  void wait() const {
    if (event_) event_->synchronize();
  }

 private:
  const Lanes& lanes_;
  std::optional<c10::Event> event_;
};

class Staged final : public StateStore {
 public:
  Staged(const at::Device& device, const std::string& directory, int64_t slice)
      : device_(device),
        files_(directory.empty() ? nullptr : state_in_files(directory, slice)),
        slice_(slice),
        lanes_(device),
        slots_{Slot{lanes_, device}, Slot{lanes_, device}} {}
  ~Staged() override {
    try {
      settle();
    } catch (const std::exception&) {
      // The device has failed; whoever uses it next is told so.
    }
  }

  at::Tensor zeros(int64_t count, at::ScalarType type) override {
    if (files_) return files_->zeros(count, type);
    return at::zeros({count}, at::TensorOptions(type).pinned_memory(!device_.is_cpu()));
  }

  void over(const Tensors& buffers, const Update& update, bool whole) override {
    const int64_t total = buffers.front().numel(), most = whole ? total : slice_;
    if (total == 0) return;
    const int64_t slices = (total + most - 1) / most;
    const auto part = [&](const at::Tensor& buffer, int64_t i) {
      return buffer.narrow(0, i * most, std::min(most, total - i * most));
    };
    const auto parts_of = [&](int64_t i) {
      Tensors parts;
      for (const auto& buffer : buffers) parts.push_back(part(buffer, i));
      return parts;
    };
    make_room(buffers, std::min(most, total));
    try {
      bring(slots_[0], parts_of(0));
      for (int64_t i = 0; i < slices; ++i) {
        if (i + 1 < slices) bring(slots_[(i + 1) % 2], parts_of(i + 1));
        Slot& slot = slots_[i % 2];
        slot.brought.hold_up(Lanes::kCompute);
        update(i * most, slot.here.front().numel(), slot.here);
        take_back(slot, parts_of(i));
      }
    } catch (...) {
      finish_all();
      throw;
    }
  }

  void fill(const at::Tensor& buffer, const at::Tensor& values) override {
    settle();
    if (files_) return files_->fill(buffer, values);
    at::Tensor(buffer).copy_(values.view_as(buffer));
  }

  void settle() override {
    for (const Slot& slot : slots_) slot.taken_back.wait();
  }

 private:
  // Room on the device for one slice of each buffer.
  struct Slot {
    Slot(const Lanes& lanes, const at::Device& device)
        : brought(lanes, device), updated(lanes, device), taken_back(lanes, device) {}
    Tensors room;  // bytes
    Tensors here;  // the slice that is in it
    Mark brought, updated, taken_back;
  };

  void make_room(const Tensors& buffers, int64_t count) {
    for (Slot& slot : slots_) {
      if (slot.room.size() < buffers.size()) slot.room.resize(buffers.size());
      for (std::size_t i = 0; i < buffers.size(); ++i) {
        const auto bytes = count * static_cast<int64_t>(buffers[i].element_size());
        if (slot.room[i].defined() && slot.room[i].numel() >= bytes) continue;
        settle();  // the room that is given up may still be read
        slot.room[i] = at::empty({bytes}, at::TensorOptions(at::kByte).device(device_));
        slot.updated.set(Lanes::kCompute);  // it may be memory that work before this still uses
        slot.updated.hold_up(Lanes::kIn);
      }
    }
  }

  // Waits for all that is under way, also for an update that an error has left.
  void finish_all() {
    for (Slot& slot : slots_) {
      slot.brought.wait();
      slot.updated.set(Lanes::kCompute);
      slot.updated.wait();
    }
    settle();
  }

  void bring(Slot& slot, const Tensors& parts) {
    // Both: what is brought may be what was just taken back.
    for (const Slot& each : slots_) each.taken_back.hold_up(Lanes::kIn);
    slot.here.clear();
    lanes_.run(Lanes::kIn, [&] {
      for (std::size_t i = 0; i < parts.size(); ++i) {
        const auto bytes = static_cast<int64_t>(parts[i].nbytes());
        slot.here.push_back(slot.room[i].narrow(0, 0, bytes).view(parts[i].scalar_type()));
        slot.here.back().copy_(parts[i], /*non_blocking=*/true);
      }
    });
    slot.brought.set(Lanes::kIn);
  }

  void take_back(Slot& slot, const Tensors& parts) {
    slot.updated.set(Lanes::kCompute);
    slot.updated.hold_up(Lanes::kOut);
    lanes_.run(Lanes::kOut, [&] {
      for (std::size_t i = 0; i < parts.size(); ++i) {
        at::Tensor(parts[i]).copy_(slot.here[i], /*non_blocking=*/true);
      }
    });
    slot.taken_back.set(Lanes::kOut);
    if (!files_) return;
    slot.taken_back.wait();
    for (const auto& part : parts) core::let_go(part.const_data_ptr(), part.nbytes());
  }

  const at::Device device_;
  const std::shared_ptr<StateStore> files_;  // or null: the machine's memory
  const int64_t slice_;
  const Lanes lanes_;
  std::array<Slot, 2> slots_;
};

}  // namespace

std::shared_ptr<StateStore> state_staged(const at::Device& device, const std::string& directory,
                                         int64_t slice) {
  return std::make_shared<Staged>(device, directory, slice);
}

}  // namespace omnima::optim

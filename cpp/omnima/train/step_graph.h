// A whole training step on a device: when it runs operator by operator, when its work is captured
// as a graph, and when the graph is replayed. Nothing here knows which device; train/cuda does the
// work, and a build without CUDA has none.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "omnima/data/batch.h"

namespace omnima::models {
class Decoder;
}
namespace omnima::optim {
class Optimizer;
}

namespace omnima::train {

struct StepOptions;

// What differs from step to step besides the batches.
struct StepNumbers {
  std::int64_t step = 1;     // the one to be done, from 1
  std::int64_t targets = 0;  // of all batches
  double lr = 0;
  std::vector<std::uint64_t> dropout_seeds;  // one for each batch
};

struct DeviceOutcome {
  double loss = 0;
  double grad_norm = 0;       // before clipping
  bool weights_kept = false;  // the loss or the norm is not finite: nothing was changed
};

// The size of a step whose batches are all alike; documents of varying lengths have none.
struct StepShape {
  std::int64_t batches = 0, rows = 0, time = 0;
  bool operator==(const StepShape&) const = default;
};
std::optional<StepShape> shape_of(const std::vector<data::Batch>& batches);

enum class StepMode { kEager, kCapture, kReplay };

// The second step of one shape in a row is captured; the graph then serves every step of its shape,
// until another shape comes twice in a row.
class GraphPolicy {
 public:
  // why_not: a reason never to capture, or "".
  explicit GraphPolicy(std::string why_not = "") : why_not_(std::move(why_not)) {}
  StepMode next(const std::vector<data::Batch>& batches);
  void refused(const std::string& reason);  // the capture failed: never try again
  const std::string& why_not() const { return why_not_; }
  // "captured", "eager", or "eager: " and why it stays so.
  std::string describe() const;

 private:
  std::string why_not_;
  std::optional<StepShape> last_, captured_;
};

// What a device does for a step. upload() comes first, then one of the three, then wait().
class StepBackend {
 public:
  virtual ~StepBackend() = default;
  // Starts moving batches that a later upload() will bring, while the device works.
  virtual void stage(const std::vector<data::Batch>& batches) = 0;
  virtual void upload(const std::vector<data::Batch>& batches, const StepNumbers& numbers) = 0;
  virtual void run_eagerly() = 0;
  virtual void capture() = 0;  // records the step without running it; throws where it cannot
  virtual void replay() = 0;
  virtual DeviceOutcome wait() = 0;
};

class DeviceStep {
 public:
  DeviceStep(std::unique_ptr<StepBackend> backend, GraphPolicy policy)
      : backend_(std::move(backend)), policy_(std::move(policy)) {}

  // Fills batches that the next step is likely to get; false: it cannot say.
  using Lookahead = std::function<bool(std::vector<data::Batch>&)>;
  DeviceOutcome run(const std::vector<data::Batch>& batches, const StepNumbers& numbers,
                    const Lookahead& lookahead);
  const GraphPolicy& policy() const { return policy_; }

 private:
  std::unique_ptr<StepBackend> backend_;
  GraphPolicy policy_;
  std::vector<data::Batch> ahead_;
};

// The step of the device where the model lives; nullptr: it runs operator by operator through
// optim::Optimizer (on the CPU, without CUDA in the build, with OMNIMA_REFERENCE=1, or where
// works_on_device() says no).
std::unique_ptr<DeviceStep> make_device_step(models::Decoder& model, optim::Optimizer& optimizer,
                                             const StepOptions& options);

// Whether the device's own end of a step does all that is asked: AdamW on all parameters alike,
// clipped by the norm alone, in float32 or bf16. Anything else runs operator by operator on plain
// ATen.
bool works_on_device(const optim::Optimizer& optimizer, const StepOptions& options);

// Throws core::DataError where an id lies outside [0, vocab) or a label is neither inside nor -100:
// on the host, before a device would read past its tables.
void check_tokens(const std::vector<data::Batch>& batches, std::int64_t vocab);

}  // namespace omnima::train

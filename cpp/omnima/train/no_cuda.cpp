// Compiled where OMNIMA_CUDA is off: no device runs steps of its own.
#include "omnima/train/step_graph.h"

namespace omnima::train {

std::unique_ptr<DeviceStep> make_device_step(models::Decoder&, optim::Optimizer&,
                                             const StepOptions&) {
  return nullptr;
}

}  // namespace omnima::train

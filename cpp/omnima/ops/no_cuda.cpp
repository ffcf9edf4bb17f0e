// Compiled where OMNIMA_CUDA is off: no device has operators of its own.
#include "omnima/ops/device_ops.h"

namespace omnima::ops {

const DeviceOps* device_ops(const at::Tensor&) { return nullptr; }
bool has_device_ops() { return false; }

}  // namespace omnima::ops

// What the tests change about the emulated device.
#pragma once

#include <ATen/core/Tensor.h>

namespace omnima::ops::cuda {

// While it lives, CPU tensors count as the device's: the operators run on the emulated kernels.
class AsDevice {
 public:
  AsDevice();
  ~AsDevice();
  AsDevice(const AsDevice&) = delete;
  AsDevice& operator=(const AsDevice&) = delete;
};

}  // namespace omnima::ops::cuda

namespace omnima::generate::cuda {

int recorded_steps();  // so far
void refuse_recordings(bool refuse);

}  // namespace omnima::generate::cuda

#include "omnima/ops/device_ops.h"

#include "omnima/ops/cuda/operators.h"
#include "omnima/ops/cuda/seams.h"

namespace omnima::ops {

const DeviceOps* device_ops(const at::Tensor& x) {
  static const DeviceOps table{
      cuda::rms_norm,  cuda::layer_norm,           cuda::swiglu,    cuda::gelu, cuda::embedding,
      cuda::attention, cuda::linear_cross_entropy, cuda::add_outer,
  };
  const at::ScalarType type = x.scalar_type();
  const bool known = type == at::kFloat || type == at::kBFloat16 || type == at::kLong;
  return cuda::on_device(x) && known && !reference_mode() ? &table : nullptr;
}

bool has_device_ops() { return true; }

}  // namespace omnima::ops

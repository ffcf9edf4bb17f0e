// What AdamW's update needs besides its buffers, on every device (Loshchilov and Hutter 2019).
#pragma once

namespace omnima::kernels {

struct AdamwRule {
  float lr;
  float beta1;
  float beta2;
  float eps;
  float weight_decay;
  float correction1;  // 1 - beta1^step
  float correction2;  // sqrt(1 - beta2^step)
};

}  // namespace omnima::kernels

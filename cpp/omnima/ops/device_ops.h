// The operators of a device that has kernels of its own, as one table: what the operators ask for
// before they fall back on plain ATen. Built with CUDA the table is ops/cuda's, without it there is
// none (ops/no_cuda.cpp), so nothing outside the cuda folders knows about CUDA.
#pragma once

#include <ATen/core/Tensor.h>

#include "omnima/ops/attention.h"
#include "omnima/ops/weight.h"

namespace omnima::ops {

// Arguments were checked by the operators of the same names.
struct DeviceOps {
  at::Tensor (*rms_norm)(const at::Tensor& x, const Weight& weight, double eps);
  at::Tensor (*layer_norm)(const at::Tensor& x, const Weight& weight, const Weight& bias,
                           double eps);
  at::Tensor (*swiglu)(const at::Tensor& gate_up);
  at::Tensor (*gelu)(const at::Tensor& x, bool by_tanh);
  at::Tensor (*embedding)(const at::Tensor& ids, const Weight& weight);
  at::Tensor (*attention)(const at::Tensor& qkv, const AttentionShape& shape,
                          const Positions& positions);
  at::Tensor (*linear_cross_entropy)(const at::Tensor& hidden, const Weight& weight,
                                     const at::Tensor& labels, double scale);
  void (*add_outer)(const at::Tensor& grad, const at::Tensor& dy, const at::Tensor& x);
};

// The table for tensors like x (its device, and float32 or bfloat16 or ids); nullptr: plain ATen is
// to be used, also where OMNIMA_REFERENCE=1 asks for it.
const DeviceOps* device_ops(const at::Tensor& x);

// Whether the build has such a table at all.
bool has_device_ops();

// From places [batch, time] inside the document (on the CPU) where documents begin: fills
// document_starts and longest_document. Each row begins a document.
void find_documents(const at::Tensor& places, const at::Device& device, Positions& positions);

}  // namespace omnima::ops

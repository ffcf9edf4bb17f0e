// What the tests of the CUDA kernels share: they run on the emulated device, with the threads of a
// block in either order, and must write the same bits in both.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <vector>

#include "../../ops/ops_fixture.h"
#include "omnima/kernels/cuda/types.h"

namespace omnima::kernels::cuda {

using ops::distance;
using ops::drawn;
using Tensors = std::vector<at::Tensor>;

inline bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  return a.nbytes() == b.nbytes() && std::memcmp(a.data_ptr(), b.data_ptr(), a.nbytes()) == 0;
}

// run() -> what the launchers wrote.
inline Tensors in_both_orders(const std::function<Tensors()>& run) {
  emulated_cuda::set_falling_order(true);
  const Tensors falling = run();
  emulated_cuda::set_falling_order(false);
  const Tensors rising = run();
  for (std::size_t i = 0; i < rising.size(); ++i) {
    if (!rising[i].defined()) continue;
    EXPECT_TRUE(same_bits(rising[i], falling[i])) << "tensor " << i;
  }
  return rising;
}

template <class T>
T* data(const at::Tensor& x) {
  return x.defined() ? static_cast<T*>(x.data_ptr()) : nullptr;
}

// The same values, `elements` behind where an allocation begins: not aligned to 16 bytes.
inline at::Tensor moved(const at::Tensor& x, std::int64_t elements) {
  const at::Tensor room = at::empty({x.numel() + elements}, x.options());
  at::Tensor view = room.narrow(0, elements, x.numel()).view(x.sizes());
  view.copy_(x);
  return view;
}

}  // namespace omnima::kernels::cuda

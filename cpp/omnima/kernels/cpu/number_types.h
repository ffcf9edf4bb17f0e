// The storage types of kernels: float and bfloat16, with conversions that compilers vectorise.
#pragma once

#include <bit>
#include <cstdint>

namespace omnima::kernels {

// The upper 16 bits of a float; same layout as c10::BFloat16.
struct bfloat16 {
  std::uint16_t bits;
};

}  // namespace omnima::kernels

// What the launchers of device code share: plain C++, so that any file may include it.
#pragma once

#include <cstdint>

#include "omnima/kernels/cpu/number_types.h"

struct CUstream_st;  // of the CUDA runtime

namespace omnima::kernels::cuda {

// cudaStream_t. Launchers put work on it and return; they check nothing and allocate nothing.
using Stream = CUstream_st*;

}  // namespace omnima::kernels::cuda

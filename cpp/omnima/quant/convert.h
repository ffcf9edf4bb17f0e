// Whole tensors between float32 and the blocks of a format, on all threads.
#pragma once

#include <ATen/core/Tensor.h>

#include "omnima/quant/format.h"

namespace omnima::quant {

// float32 numbers of blocks that hold `sizes`, whose last is a whole number of blocks.
at::Tensor dequantized(const Format& format, const void* blocks, at::IntArrayRef sizes);
// Throws DataError where the last dimension of such sizes is no whole number of blocks.
void require_blocks(const Format& format, at::IntArrayRef sizes);
// The blocks of a float32 tensor whose last dimension is a whole number of them: bytes [size].
at::Tensor quantized(const Format& format, const at::Tensor& numbers);

// Writes the numbers of a tensor that lies in a file into a float32 parameter on the CPU, in one
// pass on all threads. `stored` holds blocks of the format as bytes, or numbers one by one,
// contiguous. False: a NaN or an infinity is among them.
bool fill(const at::Tensor& parameter, const Format& format, const at::Tensor& stored);

}  // namespace omnima::quant

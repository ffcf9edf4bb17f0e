// Matrix products of two dimensions on the CPU, on kernels of our own and all threads. Every
// element is summed in the same order on any number of threads.
#pragma once

#include <ATen/core/Tensor.h>

namespace omnima::ops {

// out = a b: a [m, k], b [k, n], out [m, n], all float32 or all bfloat16. a and b are rows or
// columns that lie in order (a transposed view will do); the rows of out may lie apart. float32
// sums.
void product_out(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b);
// sum += a b, where sum [m, n] is float32; its rows may lie apart.
void add_product(const at::Tensor& sum, const at::Tensor& a, const at::Tensor& b);
// out = a b likewise.
void float_product_out(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b);
// y += a b for a thin a [m, k], into y [m, n] of the type of a, whose rows may lie apart: what an
// adapter adds to some outputs of a layer. A sum over more than 1,024 numbers is rounded in
// between.
void add_thin_product(const at::Tensor& y, const at::Tensor& a, const at::Tensor& b);
// A right factor b [k, n] packed once for many products: bytes [packed_size(b)] that only these
// functions understand; packed_size is a multiple of a cache line.
int64_t packed_size(const at::Tensor& b);
void pack_right(const at::Tensor& packed, const at::Tensor& b);
// product_out where `packed` holds b; undefined or empty: b is packed on the way.
void product_out_packed(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b,
                        const at::Tensor& packed);
// A new tensor a b, of the type of a; with plain ATen on other devices than the CPU.
at::Tensor product(const at::Tensor& a, const at::Tensor& b);
// The same where a b [n, n] is known to be symmetric, as x x^T is: half of it is computed, the
// other half is its mirror image, so that it is exactly symmetric. Of the type of a, or float32.
at::Tensor symmetric_product(const at::Tensor& a, const at::Tensor& b, at::ScalarType type);

}  // namespace omnima::ops

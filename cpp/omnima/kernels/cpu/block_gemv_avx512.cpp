// block_gemv with 16 lanes.
#ifdef OMNIMA_X86
#include "omnima/kernels/cpu/block_gemv_tile.h"
#include "omnima/kernels/cpu/lanes_avx512.h"

namespace omnima::kernels {

BlockKernels block_kernels_avx512(const Blocks& format) { return block_kernels<Avx512>(format); }

}  // namespace omnima::kernels
#endif

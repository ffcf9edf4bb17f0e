// block_gemv with 8 lanes.
#ifdef OMNIMA_X86
#include "omnima/kernels/cpu/block_gemv_tile.h"
#include "omnima/kernels/cpu/lanes_avx2.h"

namespace omnima::kernels {

BlockKernels block_kernels_avx2(const Blocks& format) { return block_kernels<Avx2>(format); }

}  // namespace omnima::kernels
#endif

// The cache's attention with 16 lanes.
#ifdef OMNIMA_X86
#include "omnima/kernels/cpu/cached_heads_tile.h"
#include "omnima/kernels/cpu/lanes_avx512.h"

namespace omnima::kernels {

const CachedHeadKernels& cached_head_kernels_avx512() {
  static const CachedHeadKernels table = cached_kernels<Avx512>();
  return table;
}

}  // namespace omnima::kernels
#endif

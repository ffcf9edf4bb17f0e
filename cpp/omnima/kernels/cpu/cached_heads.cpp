// Chooses the variant of the cache's attention for an instruction-set level.
#include "omnima/kernels/cpu/cached_heads.h"

namespace omnima::kernels {

const CachedHeadKernels& cached_head_kernels_generic();
#ifdef OMNIMA_X86
const CachedHeadKernels& cached_head_kernels_avx2();
const CachedHeadKernels& cached_head_kernels_avx512();
#endif

const CachedHeadKernels& cached_head_kernels(Level level) {
  static const Variants<const CachedHeadKernels& (*)()> table{
      {Level::kGeneric, cached_head_kernels_generic},
#ifdef OMNIMA_X86
      {Level::kAvx2, cached_head_kernels_avx2},
      {Level::kAvx512, cached_head_kernels_avx512},
#endif
  };
  return table.at(level)();
}

}  // namespace omnima::kernels

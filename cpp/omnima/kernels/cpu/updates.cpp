// Chooses the variant of the optimizers' passes for the active instruction-set level.
#include "omnima/kernels/cpu/updates.h"

namespace omnima::kernels {

namespace generic {
const UpdateKernels& updates_table();
}
#ifdef OMNIMA_X86
namespace avx2 {
const UpdateKernels& updates_table();
}
namespace avx512 {
const UpdateKernels& updates_table();
}
#endif

const UpdateKernels& update_kernels(Level level) {
  static const Variants<const UpdateKernels& (*)()> variants{
      {Level::kGeneric, generic::updates_table},
#ifdef OMNIMA_X86
      {Level::kAvx2, avx2::updates_table},
      {Level::kAvx512, avx512::updates_table},
#endif
  };
  return variants.at(level)();
}

}  // namespace omnima::kernels

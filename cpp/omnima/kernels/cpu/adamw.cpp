// Chooses the variant of adamw for the active instruction-set level.
#include "omnima/kernels/cpu/adamw.h"

namespace omnima::kernels {

namespace generic {
const OptimizerKernels& adamw_table();
}
#ifdef OMNIMA_X86
namespace avx2 {
const OptimizerKernels& adamw_table();
}
namespace avx512 {
const OptimizerKernels& adamw_table();
}
#endif

const OptimizerKernels& optimizer_kernels(Level level) {
  static const Variants<const OptimizerKernels& (*)()> variants{
      {Level::kGeneric, generic::adamw_table},
#ifdef OMNIMA_X86
      {Level::kAvx2, avx2::adamw_table},
      {Level::kAvx512, avx512::adamw_table},
#endif
  };
  return variants.at(level)();
}

}  // namespace omnima::kernels

// Chooses the variant of the logit kernels for the active instruction-set level.
#include "omnima/kernels/cpu/logits.h"

namespace omnima::kernels {

namespace generic {
const LogitKernels& logit_table();
}
#ifdef OMNIMA_X86
namespace avx2 {
const LogitKernels& logit_table();
}
namespace avx512 {
const LogitKernels& logit_table();
}
#endif

const LogitKernels& logit_kernels(Level level) {
  static const Variants<const LogitKernels& (*)()> variants{
      {Level::kGeneric, generic::logit_table},
#ifdef OMNIMA_X86
      {Level::kAvx2, avx2::logit_table},
      {Level::kAvx512, avx512::logit_table},
#endif
  };
  return variants.at(level)();
}

}  // namespace omnima::kernels

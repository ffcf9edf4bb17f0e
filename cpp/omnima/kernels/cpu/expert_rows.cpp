// Chooses the variant of expert_rows for the active instruction-set level.
#include "omnima/kernels/cpu/expert_rows.h"

namespace omnima::kernels {

namespace generic {
template <class T>
const ExpertRowKernels<T>& expert_row_table();
}
#ifdef OMNIMA_X86
namespace avx2 {
template <class T>
const ExpertRowKernels<T>& expert_row_table();
}
namespace avx512 {
template <class T>
const ExpertRowKernels<T>& expert_row_table();
}
namespace avx512bf16 {
template <class T>
const ExpertRowKernels<T>& expert_row_table();
}
#endif

template <class T>
const ExpertRowKernels<T>& expert_row_kernels(Level level) {
  static const Variants<const ExpertRowKernels<T>& (*)()> variants{
      {Level::kGeneric, generic::expert_row_table<T>},
#ifdef OMNIMA_X86
      {Level::kAvx2, avx2::expert_row_table<T>},
      {Level::kAvx512, avx512::expert_row_table<T>},
      {Level::kAvx512Bf16, avx512bf16::expert_row_table<T>},
#endif
  };
  return variants.at(level)();
}
template const ExpertRowKernels<float>& expert_row_kernels<float>(Level);
template const ExpertRowKernels<bfloat16>& expert_row_kernels<bfloat16>(Level);

}  // namespace omnima::kernels

// Chooses the variant of attention for the active instruction-set level.
#include "omnima/kernels/cpu/attention.h"

namespace omnima::kernels {

namespace generic {
template <class T>
const AttentionKernels<T>& attention_table();
}
#ifdef OMNIMA_X86
namespace avx2 {
template <class T>
const AttentionKernels<T>& attention_table();
}
namespace avx512 {
template <class T>
const AttentionKernels<T>& attention_table();
}
#endif

template <class T>
const AttentionKernels<T>& attention_kernels(Level level) {
  static const Variants<const AttentionKernels<T>& (*)()> variants{
      {Level::kGeneric, generic::attention_table<T>},
#ifdef OMNIMA_X86
      {Level::kAvx2, avx2::attention_table<T>},
      {Level::kAvx512, avx512::attention_table<T>},
#endif
  };
  return variants.at(level)();
}
template const AttentionKernels<float>& attention_kernels<float>(Level);
template const AttentionKernels<bfloat16>& attention_kernels<bfloat16>(Level);

// Six matrices of the task, three tiles of vectors and two of scores; see Scratch in
// attention_body.h.
std::int64_t attention_scratch(std::int64_t time, std::int64_t head_dim) {
  const std::int64_t width = (head_dim + 15) / 16 * 16, padded = (time + 63) / 64 * 64;
  return 6 * padded * width + 3 * 64 * width + 2 * 64 * padded;
}

}  // namespace omnima::kernels

// The variants of gemv.
#include "omnima/kernels/cpu/gemv.h"

namespace omnima::kernels {

void gemv_generic(const Gemv& product, std::int64_t begin, std::int64_t end);
#ifdef OMNIMA_X86
void gemv_avx2(const Gemv& product, std::int64_t begin, std::int64_t end);
void gemv_avx512(const Gemv& product, std::int64_t begin, std::int64_t end);
#endif

const Variants<GemvFunction>& gemv_variants() {
  static const Variants<GemvFunction> table{{Level::kGeneric, gemv_generic},
#ifdef OMNIMA_X86
                                            {Level::kAvx2, gemv_avx2},
                                            {Level::kAvx512, gemv_avx512}
#endif
  };
  return table;
}

void gemv(const Gemv& product, std::int64_t begin, std::int64_t end) {
  static const GemvFunction function = gemv_variants().active();
  function(product, begin, end);
}

}  // namespace omnima::kernels

// expert_rows for the instruction-set level avx512bf16.
#ifdef OMNIMA_X86
#define OMNIMA_LEVEL avx512bf16
#include "omnima/kernels/cpu/expert_rows_body.h"
#endif

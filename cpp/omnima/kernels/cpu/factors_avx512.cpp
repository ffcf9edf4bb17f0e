// factors for the instruction-set level avx512.
#ifdef OMNIMA_X86
#define OMNIMA_LEVEL avx512
#include "omnima/kernels/cpu/factors_body.h"
#endif

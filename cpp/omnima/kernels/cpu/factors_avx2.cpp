// factors for the instruction-set level avx2.
#ifdef OMNIMA_X86
#define OMNIMA_LEVEL avx2
#include "omnima/kernels/cpu/factors_body.h"
#endif

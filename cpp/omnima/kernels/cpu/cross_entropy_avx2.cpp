// cross_entropy for the instruction-set level avx2.
#ifdef OMNIMA_X86
#define OMNIMA_LEVEL avx2
#include "omnima/kernels/cpu/cross_entropy_body.h"
#endif

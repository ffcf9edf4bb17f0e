// dropout for the instruction-set level avx2.
#ifdef OMNIMA_X86
#define OMNIMA_LEVEL avx2
#include "omnima/kernels/cpu/dropout_body.h"
#endif

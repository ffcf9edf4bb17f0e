// The look at exponents for the instruction-set level avx512.
#ifdef OMNIMA_X86
#define OMNIMA_LEVEL avx512
#include "omnima/kernels/cpu/finite_halves_body.h"
#endif

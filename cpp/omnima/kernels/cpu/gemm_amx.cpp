// gemm for the instruction-set level amx.
#ifdef OMNIMA_X86
#define OMNIMA_LEVEL amx
#include "omnima/kernels/cpu/gemm_body.h"
#endif

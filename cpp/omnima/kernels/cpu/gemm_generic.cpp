// gemm for the instruction-set level generic.
#define OMNIMA_LEVEL generic
#include "omnima/kernels/cpu/gemm_body.h"

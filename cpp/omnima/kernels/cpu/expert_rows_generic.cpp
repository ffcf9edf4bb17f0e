// expert_rows for the instruction-set level generic.
#define OMNIMA_LEVEL generic
#include "omnima/kernels/cpu/expert_rows_body.h"

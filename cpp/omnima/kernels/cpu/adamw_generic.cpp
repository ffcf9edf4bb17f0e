// adamw for the instruction-set level generic.
#define OMNIMA_LEVEL generic
#include "omnima/kernels/cpu/adamw_body.h"

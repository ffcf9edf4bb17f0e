// The optimizers' passes for the instruction-set level generic.
#define OMNIMA_LEVEL generic
#include "omnima/kernels/cpu/updates_body.h"

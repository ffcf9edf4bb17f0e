// factors for the instruction-set level generic.
#define OMNIMA_LEVEL generic
#include "omnima/kernels/cpu/factors_body.h"

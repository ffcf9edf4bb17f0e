// cross_entropy for the instruction-set level generic.
#define OMNIMA_LEVEL generic
#include "omnima/kernels/cpu/cross_entropy_body.h"

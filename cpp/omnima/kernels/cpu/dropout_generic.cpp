// dropout for the instruction-set level generic.
#define OMNIMA_LEVEL generic
#include "omnima/kernels/cpu/dropout_body.h"

// The look at exponents for the instruction-set level generic.
#define OMNIMA_LEVEL generic
#include "omnima/kernels/cpu/finite_halves_body.h"

// The logit kernels for the instruction-set level generic.
#define OMNIMA_LEVEL generic
#include "omnima/kernels/cpu/logits_body.h"

// attention for the instruction-set level generic.
#define OMNIMA_LEVEL generic
#include "omnima/kernels/cpu/attention_body.h"

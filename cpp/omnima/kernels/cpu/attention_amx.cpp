// attention for the instruction-set level amx.
#ifdef OMNIMA_X86
#define OMNIMA_LEVEL amx
#include "omnima/kernels/cpu/attention_body.h"
#endif

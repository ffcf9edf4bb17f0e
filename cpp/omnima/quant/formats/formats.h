// The formats by name, for the registry.
#pragma once

#include "omnima/quant/format.h"

namespace omnima::quant {

extern const Format kF32, kF16, kBf16;                  // plain.cpp
extern const Format kQ8_0, kQ4_0, kQ4_1, kQ5_0, kQ5_1;  // a file each
extern const Format kQ2K, kQ3K, kQ4K, kQ5K, kQ6K;

}  // namespace omnima::quant

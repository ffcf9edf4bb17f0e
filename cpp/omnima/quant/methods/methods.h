// The methods by name, for the registry: a file each.
#pragma once

#include "omnima/quant/methods/method.h"

namespace omnima::quant {

extern const Method kRtn, kGptq, kAwq;

}  // namespace omnima::quant

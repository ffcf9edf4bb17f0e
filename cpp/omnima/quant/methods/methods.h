// The methods by name, for the registry: a file each.
#pragma once

#include "omnima/quant/methods/method.h"

namespace omnima::quant {

extern const Method kRtn, kGptq, kAwq;

// What kGptq does before `refinements` rounds of refine(): by default 3.
Levels gptq(const Format& format, const at::Tensor& weight, const at::Tensor& moments,
            int refinements);

}  // namespace omnima::quant

// What Python carries from a Decoder's adapters to an Engine.
#pragma once

#include <map>
#include <string>

#include "omnima/ops/adapted.h"

namespace omnima::bindings {

struct AdaptedModel {
  std::map<std::string, ops::Adapted> linears;  // by name
};

}  // namespace omnima::bindings

// Which options of a decoder go together.
#pragma once

#include "omnima/models/decoder_config.h"

namespace omnima::models {

// Throws ConfigError for options that make no sense together, and says what to do.
void check_together(const DecoderConfig& config);

}  // namespace omnima::models

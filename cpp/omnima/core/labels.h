// What a label can say beside the id of a token.
#pragma once

#include <cstdint>

namespace omnima::core {

// This place teaches nothing: no loss, no gradient (the value that PyTorch's losses ignore, too).
inline constexpr std::int64_t kIgnoredLabel = -100;

}  // namespace omnima::core

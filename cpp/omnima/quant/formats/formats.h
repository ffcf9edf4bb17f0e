// The formats by name and the families by their sizes, for the registry.
#pragma once

#include "omnima/quant/format.h"

namespace omnima::quant {

extern const Format kF32, kF16, kBf16;                  // plain.cpp
extern const Format kQ8_0, kQ4_0, kQ4_1, kQ5_0, kQ5_1;  // a file each
extern const Format kQ2K, kQ3K, kQ4K, kQ5K, kQ6K;

// Members of our families; `name` says the sizes. Throws ConfigError for sizes that it cannot have.
Format make_int8(const std::string& name, std::int64_t group);
Format make_int4(const std::string& name, std::int64_t group, bool has_least);
Format make_nf4(const std::string& name, std::int64_t group, std::int64_t groups);

}  // namespace omnima::quant

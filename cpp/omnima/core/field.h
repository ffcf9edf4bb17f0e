// A config field is described once: name, type, default, bounds or choices, meaning. Python reads
// the same list.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace omnima::core {

using FieldValue = std::variant<bool, std::int64_t, double, std::string>;

struct Field {
  std::string name;
  FieldValue default_value;
  std::string meaning;
  double minimum = 0;                  // numbers: inclusive
  double maximum = 0;                  // numbers: inclusive
  std::vector<std::string> choices{};  // strings: what may stand here
};

// The name of `names` nearest to `name` by edit distance, or "" for an empty list.
std::string nearest_name(const std::string& name, const std::vector<std::string>& names);

// Throws ConfigError unless `value` has the field's type and lies in its bounds or choices.
void check_field(const Field& field, const FieldValue& value);

}  // namespace omnima::core

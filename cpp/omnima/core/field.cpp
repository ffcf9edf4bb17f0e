#include "omnima/core/field.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "omnima/core/error.h"

namespace omnima::core {
namespace {

std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0]++;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row.back();
}

std::string join(const std::vector<std::string>& words) {
  std::string text;
  for (const auto& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

void check_number(const Field& field, double value) {
  require<ConfigError>(std::isfinite(value) && value >= field.minimum && value <= field.maximum,
                       field.name, " is ", value, ", but it must lie between ", field.minimum,
                       " and ", field.maximum, " (", field.meaning, ").");
}

}  // namespace

std::string nearest_name(const std::string& name, const std::vector<std::string>& names) {
  const auto best = std::min_element(names.begin(), names.end(), [&](auto& a, auto& b) {
    return edit_distance(name, a) < edit_distance(name, b);
  });
  return best == names.end() ? "" : *best;
}

void check_field(const Field& field, const FieldValue& value) {
  require<ConfigError>(value.index() == field.default_value.index(), field.name,
                       " has a value of the wrong type (", field.meaning, ").");
  if (const auto* number = std::get_if<std::int64_t>(&value)) {
    check_number(field, static_cast<double>(*number));
  } else if (const auto* real = std::get_if<double>(&value)) {
    check_number(field, *real);
  } else if (const auto* word = std::get_if<std::string>(&value)) {
    const auto& choices = field.choices;
    if (choices.empty()) return;
    if (std::find(choices.begin(), choices.end(), *word) != choices.end()) return;
    throw ConfigError(message(field.name, " is \"", *word, "\"; the choices are ", join(choices),
                              "; the nearest is \"", nearest_name(*word, choices), "\"."));
  }
}

}  // namespace omnima::core

#include "omnima/optim/groups.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "omnima/core/error.h"
#include "omnima/core/field.h"

namespace omnima::optim {
namespace {

using core::ConfigError;
using core::require;

constexpr const char* kRuleForm = "PATTERN:lr=0.5,weight_decay=0";
constexpr const char* kFrozenForm = "PATTERN or PATTERN@FIRST-LAST, such as *embed*@1-100";
constexpr const char* kRowsForm = "PATTERN[:ROWS], such as *embed*[:512]";

template <class Number>
Number read_number(const std::string& text, const std::string& rule, const char* form) {
  Number value{};
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  require<ConfigError>(problem == std::errc() && end == text.data() + text.size() && !text.empty(),
                       "\"", text, "\" in \"", rule, "\" is not a number; expected is ", form, ".");
  return value;
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::size_t start = 0;
  for (std::size_t at; (at = text.find(separator, start)) != std::string::npos; start = at + 1) {
    parts.push_back(text.substr(start, at - start));
  }
  parts.push_back(text.substr(start));
  return parts;
}

}  // namespace

bool matches(const std::string& pattern, const std::string& name) {
  std::size_t p = 0, n = 0, star = std::string::npos, tried = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      tried = n;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p;
      ++n;
    } else if (star != std::string::npos) {
      p = star + 1;
      n = ++tried;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == std::string::npos;
}

Groups::Groups(const nn::Arena& arena, double weight_decay, const std::vector<std::string>& rules,
               const std::vector<std::string>& frozen)
    : arena_(arena), plain_(rules.empty() && frozen.empty()) {
  const auto& parameters = arena.parameters();
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const auto& each = parameters[i];
    const Span span{each.offset, each.offset + each.size(), 1.0,
                    each.is_matrix() ? weight_decay : 0.0};
    members_.push_back({i, span, each.is_matrix(), {}, 0});
  }
  std::sort(members_.begin(), members_.end(),
            [](const auto& a, const auto& b) { return a.span.first < b.span.first; });
  member_of_.resize(members_.size());
  for (std::size_t i = 0; i < members_.size(); ++i) member_of_[members_[i].index] = i;
  for (const auto& rule : rules) add_rule(rule);
  for (const auto& rule : frozen) add_frozen(rule);
}

std::vector<std::size_t> Groups::named(const std::string& pattern, const std::string& rule) const {
  std::vector<std::size_t> found;
  std::vector<std::string> names;
  for (std::size_t i = 0; i < members_.size(); ++i) {
    names.push_back(arena_.parameters()[members_[i].index].name);
    if (matches(pattern, names.back())) found.push_back(i);
  }
  require<ConfigError>(!found.empty(), "No parameter has a name like \"", pattern, "\" (\"", rule,
                       "\"); the nearest is \"", core::nearest_name(pattern, names),
                       "\". In a pattern * stands for any text.");
  return found;
}

void Groups::add_rule(const std::string& rule) {
  const auto colon = rule.find(':');
  require<ConfigError>(colon != std::string::npos, "The group \"", rule,
                       "\" says nothing about its parameters; expected is ", kRuleForm, ".");
  const auto found = named(rule.substr(0, colon), rule);
  for (const auto& part : split(rule.substr(colon + 1), ',')) {
    const auto equals = part.find('=');
    const std::string key = part.substr(0, equals);
    require<ConfigError>(equals != std::string::npos && (key == "lr" || key == "weight_decay"),
                         "\"", part, "\" in the group \"", rule, "\" is neither lr=NUMBER nor ",
                         "weight_decay=NUMBER; expected is ", kRuleForm, ".");
    const double value = read_number<double>(part.substr(equals + 1), rule, kRuleForm);
    if (key == "lr") {
      core::check_field({"lr of \"" + rule + "\"", 1.0, "multiple of the learning rate", 0, 1e6},
                        value);
    } else {
      core::check_field({"weight_decay of \"" + rule + "\"", 0.1, "decay", 0, 10}, value);
    }
    for (const auto i : found)
      (key == "lr" ? members_[i].span.lr : members_[i].span.weight_decay) = value;
  }
}

void Groups::add_frozen(const std::string& rule) {
  if (const auto bracket = rule.find('['); bracket != std::string::npos) {
    return add_frozen_rows(rule, bracket);
  }
  const auto at = rule.find('@');
  Rest rest{1, std::numeric_limits<std::int64_t>::max()};
  if (at != std::string::npos) {
    const auto ends = split(rule.substr(at + 1), '-');
    require<ConfigError>(ends.size() == 2 && !(ends[0].empty() && ends[1].empty()), "\"", rule,
                         "\" does not say from which step to which it is frozen; expected is ",
                         kFrozenForm, ".");
    if (!ends[0].empty()) rest.first = read_number<std::int64_t>(ends[0], rule, kFrozenForm);
    if (!ends[1].empty()) rest.last = read_number<std::int64_t>(ends[1], rule, kFrozenForm);
    require<ConfigError>(rest.first >= 1 && rest.first <= rest.last, "\"", rule,
                         "\" freezes no step: steps count from 1, and the first comes first.");
  }
  for (const auto i : named(rule.substr(0, at), rule)) members_[i].rests.push_back(rest);
}

void Groups::add_frozen_rows(const std::string& rule, std::size_t bracket) {
  require<ConfigError>(rule.compare(bracket, 2, "[:") == 0 && rule.back() == ']', "\"", rule,
                       "\" does not say how many rows are frozen (in the whole run); expected is ",
                       kRowsForm, ".");
  const auto rows = read_number<std::int64_t>(rule.substr(bracket + 2, rule.size() - bracket - 3),
                                              rule, kRowsForm);
  for (const auto i : named(rule.substr(0, bracket), rule)) {
    const auto& parameter = arena_.parameters()[members_[i].index];
    require<ConfigError>(1 <= rows && rows <= parameter.sizes[0], "\"", rule, "\" freezes ", rows,
                         " rows; ", parameter.name, " has ", parameter.sizes[0], ".");
    members_[i].still = std::max(members_[i].still, rows * (parameter.size() / parameter.sizes[0]));
  }
}

int64_t Groups::Member::frozen(std::int64_t step) const {
  const bool rests_whole = std::any_of(
      rests.begin(), rests.end(), [&](const Rest& r) { return r.first <= step && step <= r.last; });
  return rests_whole ? span.count() : still;
}

std::vector<Span> Groups::joined(std::int64_t step, bool frozen) const {
  std::vector<Span> spans;
  const Member* before = nullptr;
  for (const auto& member : members_) {
    const int64_t rests = member.frozen(step);
    const Span span =
        frozen ? member.span.part(0, rests) : member.span.part(rests, member.span.count() - rests);
    if (span.count() == 0) continue;
    if (before != nullptr && before->is_matrix == member.is_matrix &&
        spans.back().last == span.first && spans.back().lr == span.lr &&
        spans.back().weight_decay == span.weight_decay) {
      spans.back().last = span.last;
    } else {
      spans.push_back(span);
    }
    before = &member;
  }
  return spans;
}

std::vector<Span> Groups::moving(std::int64_t step) const { return joined(step, false); }
std::vector<Span> Groups::frozen(std::int64_t step) const {
  return plain_ ? std::vector<Span>{} : joined(step, true);
}

std::vector<bool> Groups::frozen_parameters(std::int64_t step) const {
  std::vector<bool> all(members_.size());
  for (const auto& member : members_) {
    all[member.index] = member.frozen(step) == member.span.count();
  }
  const bool any = std::find(all.begin(), all.end(), true) != all.end();
  return any ? all : std::vector<bool>{};
}

std::optional<Span> Groups::parameter(std::size_t index, std::int64_t step) const {
  const Member& member = members_[member_of_[index]];
  const int64_t rests = member.frozen(step);
  if (rests == member.span.count()) return std::nullopt;
  return member.span.part(rests, member.span.count() - rests);
}

}  // namespace omnima::optim

// Canonical composition as the Unicode standard defines it (3.11, D68 to D117): decompose, order
// marks, compose.
#include "omnima/text/unicode.h"

#include <algorithm>
#include <span>
#include <unordered_map>
#include <vector>

#include "omnima/text/unicode_data.h"
#include "omnima/text/utf8.h"

namespace omnima::text {
namespace {

using unicode_data::kClassRuns;
using unicode_data::kClassRunsSize;
using unicode_data::kCombiningRuns;
using unicode_data::kCombiningRunsSize;
using unicode_data::kDecompositions;
using unicode_data::kDecompositionsSize;

constexpr std::uint32_t kCodePoints = 0x110000;
// Hangul syllables are arithmetic (3.12).
constexpr std::uint32_t kSyllables = 0xAC00, kLeads = 0x1100, kVowels = 0x1161, kTails = 0x11A7;
constexpr std::uint32_t kLeadCount = 19, kVowelCount = 21, kTailCount = 28;
constexpr std::uint32_t kSyllableCount = kLeadCount * kVowelCount * kTailCount;

struct Mapping {
  std::uint32_t first, second;
};

// What NFC needs to know of characters, read out of the tables once.
struct Canon {
  std::unordered_map<std::uint32_t, std::uint8_t> combining;
  std::unordered_map<std::uint32_t, Mapping> decomposed;
  std::unordered_map<std::uint64_t, std::uint32_t> composed;

  static std::uint64_t key(std::uint32_t first, std::uint32_t second) {
    return static_cast<std::uint64_t>(first) << 32 | second;
  }

  Canon() {
    for (std::size_t i = 0; i < kCombiningRunsSize; i += 3) {
      for (std::uint32_t j = 0; j < kCombiningRuns[i + 1]; ++j) {
        combining[kCombiningRuns[i] + j] = static_cast<std::uint8_t>(kCombiningRuns[i + 2]);
      }
    }
    for (std::size_t i = 0; i < kDecompositionsSize; i += 4) {
      const auto row = std::span(kDecompositions, kDecompositionsSize).subspan(i, 4);
      decomposed[row[0]] = {row[1], row[2]};
      if (row[3] != 0) composed[key(row[1], row[2])] = row[0];
    }
  }

  std::uint8_t class_of(std::uint32_t point) const {
    const auto found = combining.find(point);
    return found == combining.end() ? 0 : found->second;
  }
};

const Canon& canon() {
  static const Canon one;
  return one;
}

std::vector<std::uint8_t> make_classes() {
  std::vector<std::uint8_t> classes;
  classes.reserve(kCodePoints);
  for (std::size_t i = 0; i < kClassRunsSize; ++i) {
    classes.insert(classes.end(), kClassRuns[i] / 64,
                   static_cast<std::uint8_t>(kClassRuns[i] % 64));
  }
  const auto unstable = [&](std::uint32_t point) { classes[point] |= kUnstable; };
  for (const auto& [point, combining] : canon().combining) unstable(point);
  for (std::size_t i = 0; i < kDecompositionsSize; i += 4) {
    unstable(kDecompositions[kDecompositions[i + 3] != 0 ? i + 2 : i]);
  }
  for (std::uint32_t i = 0; i < kVowelCount; ++i) unstable(kVowels + i);
  for (std::uint32_t i = 1; i < kTailCount; ++i) unstable(kTails + i);
  return classes;
}

void decompose(std::uint32_t point, std::vector<std::uint32_t>& out) {
  if (point >= kSyllables && point < kSyllables + kSyllableCount) {
    const std::uint32_t index = point - kSyllables;
    out.push_back(kLeads + index / (kVowelCount * kTailCount));
    out.push_back(kVowels + index / kTailCount % kVowelCount);
    if (index % kTailCount != 0) out.push_back(kTails + index % kTailCount);
    return;
  }
  const auto found = canon().decomposed.find(point);
  if (found == canon().decomposed.end()) {
    out.push_back(point);
    return;
  }
  decompose(found->second.first, out);
  if (found->second.second != 0) decompose(found->second.second, out);
}

// The character that two make, or 0.
std::uint32_t compose(std::uint32_t first, std::uint32_t second) {
  if (first - kLeads < kLeadCount && second - kVowels < kVowelCount) {
    return kSyllables + ((first - kLeads) * kVowelCount + second - kVowels) * kTailCount;
  }
  const bool open = first - kSyllables < kSyllableCount && (first - kSyllables) % kTailCount == 0;
  if (open && second > kTails && second < kTails + kTailCount) return first + second - kTails;
  const auto found = canon().composed.find(Canon::key(first, second));
  return found == canon().composed.end() ? 0 : found->second;
}

void order_marks(std::vector<std::uint32_t>& points) {
  const auto class_of = [](std::uint32_t point) { return canon().class_of(point); };
  for (auto first = points.begin(); first != points.end();) {
    if (class_of(*first) == 0) {
      ++first;
      continue;
    }
    auto last = first;
    while (last != points.end() && class_of(*last) != 0) ++last;
    std::ranges::stable_sort(first, last, {}, class_of);
    first = last;
  }
}

void compose_all(std::vector<std::uint32_t>& points) {
  std::size_t kept = 0, starter = 0;
  bool has_starter = false;
  int before = -1;  // class of the mark kept last behind the starter; -1: none
  for (const std::uint32_t point : points) {
    const int combining = canon().class_of(point);
    const bool blocked = before >= combining;
    const std::uint32_t both = has_starter && !blocked ? compose(points[starter], point) : 0;
    if (both != 0) {
      points[starter] = both;
      continue;
    }
    if (combining == 0) {
      starter = kept;
      has_starter = true;
    }
    before = combining == 0 ? -1 : combining;
    points[kept++] = point;
  }
  points.resize(kept);
}

bool is_stable(std::string_view text) {
  const std::uint8_t* classes = char_classes();
  for (std::size_t at = 0; at < text.size();) {
    const auto lead = static_cast<unsigned char>(text[at]);
    if (lead < 0xCC) {  // below U+0300 all characters are stable
      ++at;
      continue;
    }
    if ((classes[code_point(text.substr(at, 4))] & kUnstable) != 0) return false;
    at += utf8_length(lead);
  }
  return true;
}

}  // namespace

const std::uint8_t* char_classes() {
  static const std::vector<std::uint8_t> classes = make_classes();
  return classes.data();
}

void append_utf8(std::uint32_t point, std::string& out) {
  const auto tail = [&](int shift) { out += static_cast<char>(0x80 | (point >> shift & 0x3F)); };
  if (point < 0x80) {
    out += static_cast<char>(point);
  } else if (point < 0x800) {
    out += static_cast<char>(0xC0 | point >> 6);
    tail(0);
  } else if (point < 0x10000) {
    out += static_cast<char>(0xE0 | point >> 12);
    tail(6);
    tail(0);
  } else {
    out += static_cast<char>(0xF0 | point >> 18);
    tail(12);
    tail(6);
    tail(0);
  }
}

std::string_view to_nfc(std::string_view text, std::string& buffer) {
  if (is_stable(text)) return text;
  std::vector<std::uint32_t> points;
  points.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const std::string_view character =
        text.substr(at, utf8_length(static_cast<unsigned char>(text[at])));
    decompose(code_point(character), points);
    at += character.size();
  }
  order_marks(points);
  compose_all(points);
  buffer.clear();
  for (const std::uint32_t point : points) append_utf8(point, buffer);
  return buffer;
}

}  // namespace omnima::text

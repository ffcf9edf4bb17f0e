#include "omnima/io/json.h"

#include <bit>
#include <cstdint>
#include <cstring>
#include <set>

#include "omnima/core/error.h"

namespace omnima::io {
namespace {

using core::DataError;
using core::message;

void append_utf8(std::string& out, std::uint32_t point) {
  const auto tail = [&](int shift) { out += static_cast<char>(0x80 | ((point >> shift) & 0x3F)); };
  if (point < 0x80) {
    out += static_cast<char>(point);
  } else if (point < 0x800) {
    out += static_cast<char>(0xC0 | (point >> 6));
    tail(0);
  } else if (point < 0x10000) {
    out += static_cast<char>(0xE0 | (point >> 12));
    tail(6), tail(0);
  } else {
    out += static_cast<char>(0xF0 | (point >> 18));
    tail(12), tail(6), tail(0);
  }
}

// The length of the character that starts with `lead`, or 0 when no character starts so.
std::size_t utf8_length(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return 2;
  if (lead >= 0xE0 && lead <= 0xEF) return 3;
  if (lead >= 0xF0 && lead <= 0xF4) return 4;
  return 0;
}

// The eight bytes at `at`, the first lowest; zeros stand for those behind the end.
std::uint64_t next_eight(std::string_view text, std::size_t at) {
  const auto load = [&](std::size_t place, auto value) {
    std::memcpy(&value, text.data() + place, sizeof(value));
    return static_cast<std::uint64_t>(value);
  };
  const std::size_t size = text.size(), left = size - at;
  if (left >= 8) return load(at, std::uint64_t{});
  if (size >= 8) return load(size - 8, std::uint64_t{}) >> 8 * (8 - left);
  if (left >= 4) {
    return load(at, std::uint32_t{}) | load(size - 4, std::uint32_t{}) << 8 * (left - 4);
  }
  std::uint64_t eight = 0;
  for (std::size_t i = 0; i < left; ++i) eight |= load(at + i, std::uint8_t{}) << 8 * i;
  return eight;
}

}  // namespace

bool is_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const std::uint64_t beyond_ascii = next_eight(text, i) & 0x8080808080808080ULL;
    if (beyond_ascii == 0) {
      i += 8;
      continue;
    }
    i += static_cast<std::size_t>(std::countr_zero(beyond_ascii)) / 8;
    const auto byte = [&](std::size_t k) { return static_cast<unsigned char>(text[i + k]); };
    if (byte(0) >= 0xC2 && byte(0) < 0xE0 && i + 2 <= text.size() && (byte(1) & 0xC0) == 0x80) {
      i += 2;
      continue;
    }
    const std::size_t length = utf8_length(byte(0));
    if (length == 0 || i + length > text.size()) return false;
    for (std::size_t k = 1; k < length; ++k) {
      if ((byte(k) & 0xC0) != 0x80) return false;
    }
    if (byte(0) == 0xE0 && byte(1) < 0xA0) return false;  // overlong
    if (byte(0) == 0xED && byte(1) > 0x9F) return false;  // surrogates
    if (byte(0) == 0xF0 && byte(1) < 0x90) return false;  // overlong
    if (byte(0) == 0xF4 && byte(1) > 0x8F) return false;  // above U+10FFFF
    i += length;
  }
  return true;
}

std::string quote_json(std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20) {
      out += "\\u00";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    } else {
      out += c;
    }
  }
  return out + '"';
}

void JsonReader::fail(const std::string& what) const {
  throw DataError(message(where_, subject_.empty() ? "" : ", tensor " + quote_json(subject_), ": ",
                          what, " (byte ", place_, " of the header)."));
}

std::string JsonReader::found() const {
  if (place_ >= text_.size()) return "the end";
  const char c = text_[place_];
  if (c < 0x20 || c > 0x7E) return message("byte ", int{static_cast<unsigned char>(c)});
  return message("'", c, "'");
}

void JsonReader::skip_space() {
  while (peek() == ' ' || peek() == '\n' || peek() == '\r' || peek() == '\t') ++place_;
}

void JsonReader::expect(char wanted, const char* what) {
  skip_space();
  if (peek() != wanted || place_ >= text_.size()) {
    fail(message("expected ", what, ", found ", found()));
  }
  ++place_;
}

void JsonReader::object(const std::function<void(const std::string&)>& member) {
  expect('{', "an object");
  skip_space();
  std::set<std::string> keys;
  if (peek() == '}') {
    ++place_;
    return;
  }
  for (;;) {
    const std::string key = string();
    if (!keys.insert(key).second) fail(message("the key ", quote_json(key), " stands twice"));
    expect(':', "':' after a key");
    member(key);
    skip_space();
    if (peek() == '}') break;
    expect(',', "',' or '}'");
  }
  ++place_;
}

void JsonReader::array(const std::function<void()>& element) {
  expect('[', "an array");
  skip_space();
  if (peek() == ']') {
    ++place_;
    return;
  }
  for (;;) {
    element();
    skip_space();
    if (peek() == ']') break;
    expect(',', "',' or ']'");
  }
  ++place_;
}

std::string JsonReader::string() {
  expect('"', "a string");
  std::string out;
  for (;;) {
    if (place_ >= text_.size()) fail("a string has no end");
    const char c = text_[place_];
    if (static_cast<unsigned char>(c) < 0x20) fail("a control character inside a string");
    ++place_;
    if (c == '"') break;
    if (c == '\\') {
      append_escape(out);
    } else {
      out += c;
    }
  }
  if (!is_utf8(out)) fail("a string is not valid UTF-8");
  return out;
}

void JsonReader::append_escape(std::string& out) {
  static constexpr std::string_view kLetters = "\"\\/bfnrt";
  static constexpr std::string_view kMeanings = "\"\\/\b\f\n\r\t";
  const char c = peek();
  const auto known = c == '\0' ? std::string_view::npos : kLetters.find(c);
  if (known != std::string_view::npos) {
    ++place_;
    out += kMeanings[known];
    return;
  }
  if (c != 'u') fail(message("unknown escape, found ", found(), " after '\\'"));
  ++place_;
  std::uint32_t point = hex4();
  if (point >= 0xDC00 && point <= 0xDFFF) fail("a lone surrogate in a string");
  if (point >= 0xD800 && point <= 0xDBFF) {
    if (text_.substr(place_, 2) != "\\u") fail("a lone surrogate in a string");
    place_ += 2;
    const std::uint32_t low = hex4();
    if (low < 0xDC00 || low > 0xDFFF) fail("a lone surrogate in a string");
    point = 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00);
  }
  append_utf8(out, point);
}

std::uint32_t JsonReader::hex4() {
  std::uint32_t value = 0;
  for (int i = 0; i < 4; ++i) {
    const char c = peek();
    std::uint32_t digit = 0;
    if (c >= '0' && c <= '9') {
      digit = static_cast<std::uint32_t>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      digit = static_cast<std::uint32_t>(c - 'a' + 10);
    } else if (c >= 'A' && c <= 'F') {
      digit = static_cast<std::uint32_t>(c - 'A' + 10);
    } else {
      fail(message("expected four hexadecimal digits after \\u, found ", found()));
    }
    value = value * 16 + digit;
    ++place_;
  }
  return value;
}

std::int64_t JsonReader::natural() {
  skip_space();
  if (peek() == '-') fail("a negative number, where a whole number from 0 on must stand");
  if (peek() < '0' || peek() > '9') fail(message("expected a whole number, found ", found()));
  if (peek() == '0' && place_ + 1 < text_.size() && text_[place_ + 1] >= '0' &&
      text_[place_ + 1] <= '9') {
    fail("a number with a leading zero");
  }
  std::int64_t value = 0;
  for (; peek() >= '0' && peek() <= '9'; ++place_) {
    if (__builtin_mul_overflow(value, std::int64_t{10}, &value) ||
        __builtin_add_overflow(value, std::int64_t{peek() - '0'}, &value)) {
      fail("a number that does not fit into 63 bits");
    }
  }
  if (peek() == '.' || peek() == 'e' || peek() == 'E') {
    fail("a number with a fraction or an exponent, where a whole number must stand");
  }
  return value;
}

void JsonReader::finish() {
  skip_space();
  if (place_ != text_.size()) fail(message("something follows the JSON object: ", found()));
}

}  // namespace omnima::io

// A strict forward reader of JSON text: the caller says what must come next, so nesting is never
// deeper than the caller's own code, and anything else is a DataError that names the place.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace omnima::io {

// Whether `text` is well-formed UTF-8 (no overlong forms, no surrogates, nothing above U+10FFFF).
bool is_utf8(std::string_view text);

// `text` as a JSON string literal with its quotes; `text` must be UTF-8.
std::string quote_json(std::string_view text);

class JsonReader {
 public:
  // `where` names the text in errors; "model.safetensors: header". Both must outlive the reader.
  JsonReader(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  // Calls member(key) at each value of the object that starts here; a key met twice is an error.
  void object(const std::function<void(const std::string&)>& member);
  // Calls element() at each element of the array that starts here.
  void array(const std::function<void()>& element);
  std::string string();
  // A whole number from 0 to 2^63 - 1; a sign, a fraction, an exponent or more is an error.
  std::int64_t natural();
  // Only spaces may follow.
  void finish();
  // Says in errors which tensor is being read; "" for none.
  void set_subject(std::string subject) { subject_ = std::move(subject); }
  [[noreturn]] void fail(const std::string& what) const;

 private:
  void skip_space();
  char peek() const { return place_ < text_.size() ? text_[place_] : '\0'; }
  void expect(char wanted, const char* what);
  void append_escape(std::string& out);
  std::uint32_t hex4();
  std::string found() const;

  std::string_view text_;
  const std::string& where_;
  std::string subject_;
  std::size_t place_ = 0;
};

}  // namespace omnima::io

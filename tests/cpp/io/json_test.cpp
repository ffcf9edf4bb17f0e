// The strict JSON reader: what it takes, and that all else is refused with its place.
#include "omnima/io/json.h"

#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "omnima/core/error.h"

namespace omnima::io {
namespace {

const std::string kWhere = "file: header";

std::string error_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const core::DataError& error) {
    return error.what();
  }
  return "no error";
}

std::string read_string(const std::string& text) {
  JsonReader reader(text, kWhere);
  std::string result = reader.string();
  reader.finish();
  return result;
}

std::int64_t read_natural(const std::string& text) {
  JsonReader reader(text, kWhere);
  const std::int64_t result = reader.natural();
  reader.finish();
  return result;
}

std::map<std::string, std::int64_t> read_object(const std::string& text) {
  JsonReader reader(text, kWhere);
  std::map<std::string, std::int64_t> result;
  reader.object([&](const std::string& key) { result[key] = reader.natural(); });
  reader.finish();
  return result;
}

std::vector<std::int64_t> read_array(const std::string& text) {
  JsonReader reader(text, kWhere);
  std::vector<std::int64_t> result;
  reader.array([&] { result.push_back(reader.natural()); });
  reader.finish();
  return result;
}

void expect_error(const std::function<void()>& act, const std::string& part) {
  const std::string error = error_of(act);
  EXPECT_NE(error.find(part), std::string::npos) << error << "\ndoes not say: " << part;
}

TEST(Utf8, TakesWellFormedTextOnly) {
  for (const char* good : {"", "plain", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF",
                           "\xEE\x80\x80", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF", "a\xC3\xA9z"}) {
    EXPECT_TRUE(is_utf8(good)) << good;
  }
  for (const char* bad : {"\x80", "\xC0\x80", "\xC1\xBF", "\xC3", "\xC3(", "\xE0\x9F\xBF",
                          "\xED\xA0\x80", "\xE2\x82", "\xE2\x28\xA1", "\xF0\x8F\xBF\xBF",
                          "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "ok\xF0\x9F\x98"}) {
    EXPECT_FALSE(is_utf8(bad)) << bad;
  }
}

TEST(Json, QuotedTextReadsBackAsItWas) {
  std::string all;
  for (char c = 0; c < 127; ++c) all += c;
  all += "\xC3\xA9\xF0\x9F\x98\x80";
  EXPECT_EQ(read_string(quote_json(all)), all);
  EXPECT_EQ(quote_json("a\"\\\n"), "\"a\\\"\\\\\\u000a\"");
}

TEST(Json, EscapesMeanWhatTheStandardSays) {
  EXPECT_EQ(read_string(R"("\"\\\/\b\f\n\r\t")"), "\"\\/\b\f\n\r\t");
  EXPECT_EQ(read_string(R"("\u0041\u00e9\u20AC\uD83D\uDE00")"),
            "A\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
}

TEST(Json, RefusesBrokenStrings) {
  expect_error([] { read_string("\"abc"); }, "a string has no end");
  expect_error([] { read_string("\"a\nb\""); }, "control character");
  expect_error([] { read_string(R"("\x41")"); }, "unknown escape, found 'x'");
  expect_error([] { read_string("\"\\"); }, "found the end");
  expect_error([] { read_string(R"("\u12g4")"); }, "hexadecimal digits after \\u, found 'g'");
  expect_error([] { read_string(R"("\uD83Dx")"); }, "lone surrogate");
  expect_error([] { read_string(R"("\uD83DA")"); }, "lone surrogate");
  expect_error([] { read_string(R"("\uD83D\u0041")"); }, "lone surrogate");
  expect_error([] { read_string(R"("\uDE00")"); }, "lone surrogate");
  expect_error([] { read_string("\"\xC3(\""); }, "not valid UTF-8");
  expect_error([] { read_string("abc"); }, "expected a string, found 'a'");
  expect_error([] { read_string("\xFF"); }, "found byte 255");
  expect_error([] { read_string(""); }, "found the end");
  expect_error([] { read_string(std::string(1, '\0')); }, "found byte 0");
}

TEST(Json, NaturalNumbers) {
  EXPECT_EQ(read_natural("0"), 0);
  EXPECT_EQ(read_natural(" \t\r\n42 "), 42);
  EXPECT_EQ(read_natural("9223372036854775807"), std::int64_t{9223372036854775807});
  expect_error([] { read_natural("9223372036854775808"); }, "63 bits");
  expect_error([] { read_natural("99999999999999999999999"); }, "63 bits");
  expect_error([] { read_natural("-1"); }, "negative number");
  expect_error([] { read_natural("01"); }, "leading zero");
  expect_error([] { read_natural("1.5"); }, "fraction or an exponent");
  expect_error([] { read_natural("1e3"); }, "fraction or an exponent");
  expect_error([] { read_natural("true"); }, "expected a whole number, found 't'");
  expect_error([] { read_natural("1 2"); }, "something follows");
}

TEST(Json, ObjectsAndArrays) {
  EXPECT_TRUE(read_object("{ }").empty());
  EXPECT_EQ(read_object(R"({"a" : 1 , "b":2})"),
            (std::map<std::string, std::int64_t>{{"a", 1}, {"b", 2}}));
  EXPECT_TRUE(read_array("[ ]").empty());
  EXPECT_EQ(read_array("[1, 2 ,3]"), (std::vector<std::int64_t>{1, 2, 3}));
  expect_error([] { read_object(R"({"a":1,"a":2})"); }, "\"a\" stands twice");
  expect_error([] { read_object(R"({"a" 1})"); }, "expected ':' after a key, found '1'");
  expect_error([] { read_object(R"({"a":1 "b":2})"); }, "expected ',' or '}', found '\"'");
  expect_error([] { read_object(R"({"a":1,})"); }, "expected a string, found '}'");
  expect_error([] { read_object(R"({"a":1)"); }, "found the end");
  expect_error([] { read_object("[]"); }, "expected an object, found '['");
  expect_error([] { read_array("[1,]"); }, "expected a whole number, found ']'");
  expect_error([] { read_array("[1;2]"); }, "expected ',' or ']', found ';'");
  expect_error([] { read_array("{}"); }, "expected an array, found '{'");
}

TEST(Json, DepthIsTheReadersOwn) {
  expect_error([] { read_array(std::string(1'000'000, '[')); }, "(byte 1 of the header)");
}

TEST(Json, ErrorsNameTheFileTheTensorAndTheByte) {
  JsonReader reader("  x", kWhere);
  reader.set_subject("w");
  EXPECT_EQ(error_of([&] { reader.natural(); }),
            "file: header, tensor \"w\": expected a whole number, found 'x' (byte 2 of the "
            "header).");
}

}  // namespace
}  // namespace omnima::io

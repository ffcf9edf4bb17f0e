// What fuzzers are given: the readers of untrusted files, each as a function of any bytes. `make
// fuzz` runs them with libFuzzer; a test of every run (tests/cpp/io/fuzz_entries_test.cpp) gives
// them the seeds, the found cases and changes of both.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace omnima::fuzz {

struct Entry {
  const char* name;
  // Returns whatever the bytes are: that a file is refused with a DataError is as good as any
  // result. Throws Finding, or is stopped by a sanitizer, where the code is at fault.
  void (*run)(std::string_view bytes);
  // Files to start from: good ones, and such that lie about themselves.
  std::vector<std::string> (*seeds)();
  // Null, or: makes the lengths in changed bytes fit again, so that changes reach what lies behind.
  void (*repair)(std::string& bytes);
};

// What the code promises and did not keep.
class Finding : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

extern const Entry kSafetensors, kGguf, kQuantize;

inline const std::vector<const Entry*>& entries() {
  static const std::vector<const Entry*> all{&kSafetensors, &kGguf, &kQuantize};
  return all;
}

inline void expect(bool holds, const char* what) {
  if (!holds) throw Finding(what);
}

// Every message about a file begins with its name.
inline const std::string kWhere = "the file";
inline void expect_named(const std::exception& error) {
  expect(std::string_view(error.what()).substr(0, kWhere.size()) == kWhere,
         "an error does not name the file");
}

}  // namespace omnima::fuzz

// Cases that fuzzers found, kept as text: found/<entry>/<what it was>.hex holds a file's bytes.
#pragma once

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace omnima::fuzz {

struct FoundCase {
  std::string name;
  std::string bytes;
};

// From pairs of hexadecimal digits; spaces and ends of lines stand where they like.
inline std::string from_hex(std::string text) {
  std::erase_if(text, [](unsigned char each) { return std::isspace(each) != 0; });
  const bool hex = std::all_of(text.begin(), text.end(),
                               [](unsigned char each) { return std::isxdigit(each) != 0; });
  if (!hex || text.size() % 2 != 0) throw std::invalid_argument("not pairs of hexadecimal digits");
  std::string bytes;
  for (std::size_t i = 0; i < text.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(text.substr(i, 2), nullptr, 16));
  }
  return bytes;
}

// OMNIMA_FUZZ_DIR: this directory.
inline std::vector<FoundCase> found_cases(const std::string& entry) {
  std::vector<FoundCase> all;
  const auto directory = std::filesystem::path(OMNIMA_FUZZ_DIR) / "found" / entry;
  if (!std::filesystem::exists(directory)) return all;
  for (const auto& each : std::filesystem::directory_iterator(directory)) {
    std::ifstream file(each.path());
    all.push_back(
        {each.path().stem().string(), from_hex({std::istreambuf_iterator<char>(file), {}})});
  }
  return all;
}

}  // namespace omnima::fuzz

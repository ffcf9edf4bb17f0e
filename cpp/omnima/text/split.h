// The patterns by which byte-level vocabularies cut text before their merges, as scanners by hand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace omnima::text {

enum class Pattern : std::uint8_t { kGpt2, kGpt2Digits, kCl100k, kLlama3, kQwen2, kO200k };

// "gpt2", "gpt2-digits", "cl100k", "llama3", "qwen2", "o200k"; DataError for other names.
Pattern pattern_of(std::string_view name);
std::vector<std::string> pattern_names();

// Finds the pieces of valid UTF-8 one after the other, as the regular expression would.
class Splitter {
 public:
  explicit Splitter(Pattern pattern);

  // End of the piece that starts at start; start < text.size(). The text's end counts: a pattern
  // may look at what follows a piece.
  std::size_t end_of_piece(std::string_view text, std::size_t start) const {
    return (this->*scan_)(text, start);
  }

 private:
  struct Character {
    std::uint8_t classes;  // 0 at the end of the text
    std::uint8_t length;   // 0 at the end of the text
    char byte;             // first byte
  };
  using Scan = std::size_t (Splitter::*)(std::string_view, std::size_t) const;

  std::size_t scan_gpt2(std::string_view text, std::size_t start) const;
  std::size_t scan_words(std::string_view text, std::size_t start) const;
  std::size_t scan_cased(std::string_view text, std::size_t start) const;

  Character at(std::string_view text, std::size_t position) const;
  bool is_other(const Character& character) const;
  std::size_t skip(std::string_view text, std::size_t position, std::uint8_t classes) const;
  std::size_t skip_others(std::string_view text, std::size_t position) const;
  std::size_t digits(std::string_view text, std::size_t start) const;
  std::size_t symbols(std::string_view text, std::size_t start) const;
  std::size_t spaces(std::string_view text, std::size_t start) const;
  std::optional<std::size_t> lower_word(std::string_view text, std::size_t start) const;
  std::optional<std::size_t> upper_word(std::string_view text, std::size_t start) const;

  const std::uint8_t* classes_;
  Pattern pattern_;
  Scan scan_;
};

}  // namespace omnima::text

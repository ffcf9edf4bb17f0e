// Whole words: a cut that the vocabulary has is its piece, every other one the unknown token.
#include <functional>
#include <string>
#include <unordered_map>

#include "omnima/text/model.h"

namespace omnima::text {
namespace {

struct StringHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const {
    return std::hash<std::string_view>{}(text);
  }
};

class Words final : public Model {
 public:
  explicit Words(const Vocabulary& vocabulary) : unknown_(*vocabulary.unknown) {
    for (std::size_t id = 0; id < vocabulary.pieces.size(); ++id) {
      if (vocabulary.roles[id] == Role::kText) {
        words_.emplace(vocabulary.pieces[id], static_cast<Id>(id));
      }
    }
  }

  void encode(std::string_view chunk, std::vector<Id>& out) const override {
    const auto found = words_.find(chunk);
    out.push_back(found == words_.end() ? unknown_ : found->second);
  }

 private:
  std::unordered_map<std::string, Id, StringHash, std::equal_to<>> words_;
  Id unknown_;
};

}  // namespace

std::unique_ptr<Model> make_words(const Vocabulary& vocabulary) {
  return std::make_unique<Words>(vocabulary);
}

}  // namespace omnima::text

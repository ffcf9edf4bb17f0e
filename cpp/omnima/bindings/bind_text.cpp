// Binds the tokenizer core: vocabulary in, ids and text out.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstring>
#include <initializer_list>
#include <tuple>

#include "omnima/bindings/bindings.h"
#include "omnima/bindings/text_list.h"
#include "omnima/core/error.h"
#include "omnima/text/character_map.h"
#include "omnima/text/stream_decoder.h"
#include "omnima/text/tokenizer.h"
#include "omnima/text/tokenizer_build.h"

namespace omnima::bindings {
namespace {

using text::Id;
using text::Tokenizer;
using Ids = py::array_t<std::int32_t, py::array::c_style>;
using Table = py::array_t<std::uint32_t, py::array::c_style | py::array::forcecast>;

using FoundTokens = std::vector<std::tuple<Id, std::string, bool, bool, bool>>;

// The value that a name stands for, of those in order.
template <class Enum>
Enum named(const char* what, const std::string& name, std::initializer_list<const char*> names) {
  int place = 0;
  std::string known;
  for (const char* each : names) {
    if (name == each) return static_cast<Enum>(place);
    known += (place++ == 0 ? "" : ", ") + std::string(each);
  }
  core::require<core::ConfigError>(false, what, " is '", name, "'; expected one of ", known);
  return Enum{};
}

text::Marking make_marking(const std::string& prefix, const std::string& opening,
                           bool in_normalizer, bool words, bool collapse, bool sentencepiece,
                           const std::optional<std::string>& characters) {
  text::Marking marking;
  marking.prefix = named<text::Prefix>("the prefix", prefix, {"never", "first", "always", "every"});
  marking.opening =
      named<text::Opening>("the opening", opening, {"nothing", "space", "mark", "marks", "piece"});
  marking.in_normalizer = in_normalizer;
  marking.words = words;
  marking.collapse = collapse;
  marking.sentencepiece = sentencepiece;
  if (characters) marking.characters = std::make_shared<text::CharacterMap>(*characters);
  return marking;
}

text::Role role_of(int role) {
  core::require<core::ConfigError>(
      role >= 0 && role <= 4, "role ", role,
      " is unknown; expected 0 (text), 1 (byte), 2 (special), 3 (added) or 4 (user)");
  return static_cast<text::Role>(role);
}

std::shared_ptr<Tokenizer> make_tokenizer(
    const std::string& algorithm, const TextList& pieces, const std::vector<int>& roles,
    const Table& merges, std::vector<double> scores, std::optional<Id> unknown,
    std::optional<Id> bos, std::optional<Id> eos, std::optional<Id> pad,
    const std::optional<std::string>& pattern, bool whole_first, bool nfc, bool fuse_unknown,
    const std::optional<text::Marking>& marking, const FoundTokens& found) {
  core::require<core::ConfigError>(
      algorithm == "bpe" || algorithm == "unigram" || algorithm == "word", "algorithm is '",
      algorithm, "'; expected 'bpe', 'unigram' or 'word'");
  core::require<core::ConfigError>(
      merges.size() == 0 || (merges.ndim() == 2 && merges.shape(1) == 3),
      "merges must be a table of (left, right, result) rows");
  text::Vocabulary vocabulary;
  vocabulary.algorithm = algorithm == "bpe"       ? text::Algorithm::kBpe
                         : algorithm == "unigram" ? text::Algorithm::kUnigram
                                                  : text::Algorithm::kWord;
  vocabulary.pieces = pieces.texts();
  for (const int role : roles) vocabulary.roles.push_back(role_of(role));
  vocabulary.scores = std::move(scores);
  const std::uint32_t* row = merges.data();
  for (py::ssize_t i = 0; i < merges.size() / 3; ++i, row += 3) {
    vocabulary.merges.push_back({row[0], row[1], row[2]});
  }
  vocabulary.unknown = unknown;
  vocabulary.bos = bos;
  vocabulary.eos = eos;
  vocabulary.pad = pad;
  if (pattern) vocabulary.pattern = text::pattern_of(*pattern);
  vocabulary.whole_first = whole_first;
  vocabulary.nfc = nfc;
  vocabulary.fuse_unknown = fuse_unknown;
  vocabulary.marking = marking;
  for (const auto& [id, text, left, right, after] : found) {
    vocabulary.found.push_back({id, text, left, right, after});
  }
  const py::gil_scoped_release release;
  return std::make_shared<Tokenizer>(std::move(vocabulary));
}

// A view of the string's own UTF-8; the caller keeps the string alive.
std::string_view view(py::handle string) {
  if (!PyUnicode_Check(string.ptr())) {
    throw py::type_error("expected text (str), got " +
                         std::string(py::str(py::type::of(string).attr("__name__"))));
  }
  Py_ssize_t size = 0;
  const char* data = PyUnicode_AsUTF8AndSize(string.ptr(), &size);
  if (data == nullptr) throw py::error_already_set();
  return {data, static_cast<std::size_t>(size)};
}

Ids to_numpy(const std::vector<Id>& ids) {
  Ids array(static_cast<py::ssize_t>(ids.size()));
  if (!ids.empty()) std::memcpy(array.mutable_data(), ids.data(), ids.size() * sizeof(Id));
  return array;
}

std::vector<Id> encode(const Tokenizer& self, const py::object& string, bool add_bos, bool add_eos,
                       bool parse_special) {
  const std::string_view text = view(string);
  std::vector<Id> ids;
  const py::gil_scoped_release release;
  self.encode(text, ids, {add_bos, add_eos, parse_special});
  return ids;
}

py::list encode_batch(const Tokenizer& self, const py::list& strings, bool add_bos, bool add_eos,
                      bool parse_special, int threads) {
  // The copy keeps every string alive while the lock is released, whatever happens to the list.
  const py::tuple kept(strings);
  std::vector<std::string_view> texts;
  texts.reserve(kept.size());
  for (const py::handle string : kept) texts.push_back(view(string));
  std::vector<std::vector<Id>> results;
  {
    const py::gil_scoped_release release;
    results = self.encode_batch(texts, {add_bos, add_eos, parse_special}, threads);
  }
  py::list arrays(results.size());
  for (std::size_t i = 0; i < results.size(); ++i) arrays[i] = to_numpy(results[i]);
  return arrays;
}

// The merges of a tokenizer, in its own memory.
py::array_t<std::uint32_t> merges_of(const std::shared_ptr<Tokenizer>& self) {
  static_assert(sizeof(text::Merge) == 3 * sizeof(Id) && sizeof(Id) == sizeof(std::uint32_t));
  const auto& merges = self->vocabulary().merges;
  const auto rows = static_cast<py::ssize_t>(merges.size());
  py::array_t<std::uint32_t> table({rows, py::ssize_t{3}},
                                   reinterpret_cast<const std::uint32_t*>(merges.data()),
                                   py::cast(self));
  table.attr("flags").attr("writeable") = false;
  return table;
}

TextList pieces_of(const std::shared_ptr<Tokenizer>& self) {
  struct Held {
    std::shared_ptr<const Tokenizer> tokenizer;
    TextList::Views views;
  };
  const auto& pieces = self->vocabulary().pieces;
  const auto held =
      std::make_shared<const Held>(Held{self, TextList::Views(pieces.begin(), pieces.end())});
  return TextList(std::shared_ptr<const TextList::Views>(held, &held->views));
}

std::vector<py::bytes> bytes_of_all(const Tokenizer& self) {
  std::vector<py::bytes> all;
  for (std::size_t id = 0; id < self.size(); ++id) {
    text::Opening opening = text::Opening::kNothing;
    std::string written;
    self.append_bytes(static_cast<Id>(id), /*skip_special=*/false, opening, written);
    all.emplace_back(written);
  }
  return all;
}

std::unique_ptr<text::TokenizerBuild> begin_tokenizer(
    const TextList& pieces, const py::bytes& roles, const TextList& merge_lines,
    std::optional<Id> bos, std::optional<Id> eos, std::optional<Id> pad, const std::string& pattern,
    bool whole_first) {
  text::Vocabulary vocabulary;
  for (const char role : std::string_view(roles)) vocabulary.roles.push_back(role_of(role));
  vocabulary.bos = bos;
  vocabulary.eos = eos;
  vocabulary.pad = pad;
  vocabulary.pattern = text::pattern_of(pattern);
  vocabulary.whole_first = whole_first;
  return std::make_unique<text::TokenizerBuild>(
      [vocabulary, pieces = pieces.views(), lines = merge_lines.views()] {
        return text::tokenizer_of_lists(vocabulary, *pieces, *lines);
      });
}

void bind_tokenizer_build(py::module_& module) {
  using text::TokenizerBuild;
  py::class_<TokenizerBuild>(module, "TokenizerBuild",
                             "A byte-level tokenizer that a thread of its own builds, beside what "
                             "else is done.")
      .def(py::init(&begin_tokenizer), py::kw_only(), py::arg("pieces"), py::arg("roles"),
           py::arg("merge_lines"), py::arg("bos"), py::arg("eos"), py::arg("pad"),
           py::arg("pattern"), py::arg("whole_first"),
           "Begins with pieces, none of which may stand twice, a byte a piece that is its role, "
           "and lines such as 'a b' for the merge of the pieces a and b to ab.")
      .def("tokenizer", &TokenizerBuild::get, py::call_guard<py::gil_scoped_release>(),
           "Waits for the tokenizer; DataError where the lists make none.");
}

void bind_tokenizer(py::module_& module) {
  py::class_<TextList>(module, "TextList",
                       "Texts as the core holds them: none of them is a Python object.")
      .def(py::init<std::vector<std::string>>(), py::arg("texts"))
      .def("__len__", [](const TextList& self) { return self.views()->size(); })
      .def("__repr__", [](const TextList& self) { return py::repr(py::cast(self.texts())); })
      .def("tolist", &TextList::texts, "The texts.")
      .def("holds_twice", &TextList::holds_twice, "Whether two of them are equal.");
  py::implicitly_convertible<py::list, TextList>();
  py::class_<Tokenizer, std::shared_ptr<Tokenizer>>(
      module, "Tokenizer", "Text to ids and back; the core behind omnima.Tokenizer.")
      .def(py::init(&make_tokenizer), py::kw_only(), py::arg("algorithm"), py::arg("pieces"),
           py::arg("roles"), py::arg("merges"), py::arg("scores"),
           py::arg("unknown") = std::nullopt, py::arg("bos") = std::nullopt,
           py::arg("eos") = std::nullopt, py::arg("pad") = std::nullopt,
           py::arg("pattern") = std::nullopt, py::arg("whole_first") = false,
           py::arg("nfc") = false, py::arg("fuse_unknown") = false,
           py::arg("marking") = std::nullopt, py::arg("found") = FoundTokens{},
           "Build from pieces (their order gives the ids), roles (0 text, 1 byte, 2 special, 3 "
           "added, 4 user), and merges (rows of left, right, result) or scores. A pattern makes it "
           "byte-level: pieces spell bytes, merges stay within what the pattern cuts. With a "
           "marking pieces spell a space as U+2581. What is found in texts before they are cut: "
           "(id, text, strips spaces before, strips those behind, is looked for behind the "
           "normalizer).")
      .def("encode", &encode, py::arg("text"), py::arg("add_bos") = false,
           py::arg("add_eos") = false, py::arg("parse_special") = false, "Ids of one text.")
      .def("encode_batch", &encode_batch, py::arg("texts"), py::arg("add_bos") = false,
           py::arg("add_eos") = false, py::arg("parse_special") = false, py::arg("threads") = 0,
           "Ids of many texts as int32 arrays, on several threads (0: one a core).")
      .def(
          "encode_dropped",
          [](const Tokenizer& self, const py::object& string, double dropout, std::uint64_t key) {
            const std::string_view text = view(string);
            std::vector<Id> ids;
            const py::gil_scoped_release release;
            self.encode_dropped(text, dropout, key, ids);
            return ids;
          },
          py::arg("text"), py::arg("dropout"), py::arg("key"),
          "Ids of one text with merges left out by chance; equal keys give equal ids.")
      .def(
          "encode_sampled",
          [](const Tokenizer& self, const py::object& string, double alpha, std::uint64_t key) {
            const std::string_view text = view(string);
            std::vector<Id> ids;
            const py::gil_scoped_release release;
            self.encode_sampled(text, alpha, key, ids);
            return ids;
          },
          py::arg("text"), py::arg("alpha"), py::arg("key"),
          "Ids drawn from all cuts of one text by the power alpha of their probability; equal keys "
          "give equal ids.")
      .def(
          "recut",
          [](const Tokenizer& self, const std::vector<Id>& ids, double amount, std::uint64_t key) {
            std::vector<Id> out;
            const py::gil_scoped_release release;
            self.recut(ids, amount, key, out);
            return out;
          },
          py::arg("ids"), py::arg("amount"), py::arg("key"),
          "Ids of the same text, cut again by chance: amount is the dropout of BPE or the alpha of "
          "unigram.")
      .def(
          "decode",
          [](const Tokenizer& self, const std::vector<Id>& ids, bool skip_special,
             const std::vector<Id>& after) {
            const py::gil_scoped_release release;
            return self.decode(ids, skip_special, after);
          },
          py::arg("ids"), py::arg("skip_special") = true, py::arg("after") = std::vector<Id>{},
          "Text of ids that come after others; broken UTF-8 is U+FFFD.")
      .def("pieces", &pieces_of, "All of them, in the order of their ids.")
      .def("merges", &merges_of, "Rows of left, right and result, in the order of their rank.")
      .def("token_bytes", &bytes_of_all,
           "What each token writes inside a text, special tokens spelled out.")
      .def("piece", &Tokenizer::piece, py::arg("id"), "The token as the vocabulary spells it.")
      .def("__len__", &Tokenizer::size);
}

void bind_stream_decoder(py::module_& module) {
  using text::StreamDecoder;
  py::class_<StreamDecoder>(module, "StreamDecoder",
                            "Ids to text one by one, never splitting a character.")
      .def(py::init([](std::shared_ptr<const Tokenizer> tokenizer, bool skip_special,
                       const std::vector<Id>& after) {
             return std::make_unique<StreamDecoder>(std::move(tokenizer), skip_special, after);
           }),
           py::arg("tokenizer"), py::arg("skip_special") = true,
           py::arg("after") = std::vector<Id>{})
      .def(
          "push",
          [](StreamDecoder& self, std::int64_t id) {
            core::require<core::DataError>(id >= 0 && id <= INT32_MAX, "token id ", id,
                                           " is outside of every vocabulary");
            return self.push(static_cast<Id>(id));
          },
          py::arg("id"), "The text that this token completes.")
      .def("finish", &StreamDecoder::finish, "What was held back; unfinished bytes are U+FFFD.");
}

}  // namespace

void bind_text(py::module_& module) {
  module.def(
      "split_text",
      [](const std::string& pattern, const py::object& string) {
        const std::string_view text = view(string);
        const text::Splitter splitter(text::pattern_of(pattern));
        py::list pieces;
        for (std::size_t start = 0, end = 0; start < text.size(); start = end) {
          end = splitter.end_of_piece(text, start);
          pieces.append(py::str(text.data() + start, end - start));
        }
        return pieces;
      },
      py::arg("pattern"), py::arg("text"), "The pieces that a pattern cuts a text into.");
  module.def("split_pattern_names", &text::pattern_names,
             "Names of the patterns by which byte-level tokenizers cut text.");
  py::class_<text::Marking>(module, "Marking",
                            "How spaces become marks (U+2581) before text is cut, and back.")
      .def(py::init(&make_marking), py::kw_only(), py::arg("prefix") = "never",
           py::arg("opening") = "nothing", py::arg("in_normalizer") = false,
           py::arg("words") = false, py::arg("collapse") = false, py::arg("sentencepiece") = false,
           py::arg("characters") = std::nullopt,
           "prefix: which stretches of text get a mark in front (never, first, always, every). "
           "opening: what a decoded text loses (nothing, space, mark, marks, piece). characters: "
           "the bytes of SentencePiece's map of characters.");
  bind_tokenizer(module);
  bind_tokenizer_build(module);
  bind_stream_decoder(module);
}

}  // namespace omnima::bindings

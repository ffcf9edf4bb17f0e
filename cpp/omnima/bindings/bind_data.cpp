// omnima._core.Loader and SampleLoader: batches of token ids as tensors.
#include <ATen/ops/empty.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "omnima/bindings/bindings.h"
#include "omnima/core/error.h"
#include "omnima/data/loader.h"
#include "omnima/data/samples.h"
#include "omnima/text/tokenizer.h"

namespace omnima::bindings {
namespace {

using Shard = std::tuple<std::string, std::string, std::uint64_t, std::uint64_t>;

template <class Number>
at::Tensor tensor_of(const std::vector<Number>& values, const data::Batch& batch) {
  at::Tensor tensor = at::empty({batch.rows, batch.time}, at::kLong);
  std::copy(values.begin(), values.end(), tensor.mutable_data_ptr<std::int64_t>());
  return tensor;
}

py::tuple next_batch(data::BatchSource& source) {
  data::Batch batch;
  at::Tensor ids, labels, segments;
  {
    const py::gil_scoped_release unlocked;
    source.next(batch);
    ids = tensor_of(batch.input_ids, batch);
    labels = tensor_of(batch.labels, batch);
    if (!batch.segments.empty()) segments = tensor_of(batch.segments, batch);
  }
  const py::object borders = segments.defined() ? py::cast(segments) : py::none();
  return py::make_tuple(ids, labels, borders);
}

// Throws where the tokenizer cannot be cut so, before any batch is made.
data::Recut recut_with(std::shared_ptr<const text::Tokenizer> tokenizer, double dropout,
                       std::optional<double> alpha) {
  core::require<core::ConfigError>(!alpha || dropout == 0.0,
                                   "alpha and dropout are both given; "
                                   "the first is for a unigram tokenizer, the other for BPE");
  std::vector<text::Id> nothing;
  if (alpha) {
    tokenizer->encode_sampled("", *alpha, 0, nothing);
  } else {
    tokenizer->encode_dropped("", dropout, 0, nothing);
  }
  return [tokenizer = std::move(tokenizer), amount = alpha.value_or(dropout)](
             std::span<const std::int64_t> ids, std::uint64_t key, std::vector<std::int64_t>& out) {
    const std::vector<text::Id> narrow(ids.begin(), ids.end());
    std::vector<text::Id> cut;
    tokenizer->recut(narrow, amount, key, cut);
    out.insert(out.end(), cut.begin(), cut.end());
  };
}

std::unique_ptr<data::Loader> make_loader(
    std::vector<Shard> shards, int width, std::int64_t rows, std::int64_t time, std::uint64_t seed,
    std::string packing, bool sequential, bool prefetch, std::int64_t end_id, std::int64_t start_id,
    data::ObjectiveOptions objective,
    const std::optional<std::shared_ptr<text::Tokenizer>>& tokenizer, double dropout,
    std::optional<double> alpha, data::CurriculumOptions curriculum) {
  data::LoaderOptions options;
  for (auto& [tokens, docs, num_tokens, num_docs] : shards) {
    options.shards.push_back({std::move(tokens), std::move(docs), num_tokens, num_docs});
  }
  options.width = width;
  options.rows = rows;
  options.time = time;
  options.seed = seed;
  options.packing = std::move(packing);
  options.sequential = sequential;
  options.prefetch = prefetch;
  options.end_id = end_id;
  options.start_id = start_id;
  options.objective = std::move(objective);
  options.curriculum = std::move(curriculum);
  if (tokenizer) options.recut = recut_with(*tokenizer, dropout, alpha);
  return std::make_unique<data::Loader>(std::move(options));
}

template <class Number>
std::vector<Number> numbers_of(const at::Tensor& x, at::ScalarType type) {
  const at::Tensor flat = x.to(at::kCPU, type).contiguous();
  const auto* first = static_cast<const Number*>(flat.const_data_ptr());
  return {first, first + flat.numel()};
}

data::SampleLoader make_sample_loader(const at::Tensor& ids, const at::Tensor& supervised,
                                      const at::Tensor& ends, std::int64_t rows, std::int64_t time,
                                      std::uint64_t seed, bool packed, bool sequential, bool paired,
                                      std::int64_t pad_id, std::vector<std::uint8_t> good) {
  data::SampleOptions options;
  options.ids = numbers_of<std::int32_t>(ids, at::kInt);
  options.supervised = numbers_of<std::uint8_t>(supervised, at::kByte);
  options.ends = numbers_of<std::uint64_t>(ends, at::kLong);
  options.rows = rows;
  options.time = time;
  options.seed = seed;
  options.packed = packed;
  options.sequential = sequential;
  options.paired = paired;
  options.pad_id = pad_id;
  options.good = std::move(good);
  return data::SampleLoader(std::move(options));
}

void bind_samples(py::module_& module) {
  py::class_<data::SampleLoader, data::BatchSource>(
      module, "SampleLoader",
      "Batches of samples of which only some tokens are labels, in an order that (seed, position) "
      "fix.")
      .def(py::init(&make_sample_loader), py::kw_only(), py::arg("ids"), py::arg("supervised"),
           py::arg("ends"), py::arg("rows"), py::arg("time"), py::arg("seed") = 0,
           py::arg("packed") = true, py::arg("sequential") = false, py::arg("paired") = false,
           py::arg("pad_id") = 0, py::arg("good") = std::vector<std::uint8_t>{},
           py::call_guard<py::gil_scoped_release>(),
           "ids of all samples one behind the other, supervised: 1 where an id is a label, ends: "
           "of each sample, of at most time + 1 tokens. packed: several samples a row with "
           "segment numbers that attention does not cross; else one, as long as the batch's "
           "longest. paired: samples 2k and 2k + 1 stay side by side. good: of each of these, 1 "
           "where people liked the answer; or empty.")
      .def("next", &next_batch,
           "The next (input_ids, labels, segments): int64 [rows, time]; segments may be None.")
      .def("set_reference", &data::SampleLoader::set_reference, py::arg("losses"),
           "Of paired samples: the summed loss of each by the model that the run began with.")
      .def(
          "samples_of_row",
          [](const data::SampleLoader& loader, std::int64_t row) {
            return loader.plan().samples_of_row(row);
          },
          py::arg("row"), "Numbers of the samples that lie in a row of the plan, in its order.")
      .def_property_readonly(
          "batches_per_epoch",
          [](const data::SampleLoader& loader) { return loader.plan().batches_per_epoch(); },
          "Batches that visit every row once (the last one may hold rows of the next epoch).")
      .def_property_readonly(
          "rows_per_epoch",
          [](const data::SampleLoader& loader) { return loader.plan().rows_per_epoch(); },
          "Rows that visit the data once.");
}

}  // namespace

void bind_data(py::module_& module) {
  using data::ObjectiveOptions;
  py::class_<ObjectiveOptions>(module, "ObjectiveOptions", "What a row of tokens asks for.")
      .def(py::init<>())
      .def_readwrite("name", &ObjectiveOptions::name)
      .def_readwrite("rate", &ObjectiveOptions::rate)
      .def_readwrite("span_length", &ObjectiveOptions::span_length)
      .def_readwrite("vocab_size", &ObjectiveOptions::vocab_size)
      .def_readwrite("mask_id", &ObjectiveOptions::mask_id)
      .def_readwrite("kept", &ObjectiveOptions::kept)
      .def_readwrite("sentinels", &ObjectiveOptions::sentinels)
      .def(
          "spans_in_row",
          [](const ObjectiveOptions& self, std::int64_t time) {
            const std::int64_t tokens = data::tokens_in_row(time, self);
            return tokens > 0 ? data::count_spans(tokens, self).spans : 0;
          },
          py::arg("time"), "Spans cut out of a row of `time` tokens; 0: it is too short.");

  using data::CurriculumOptions;
  py::class_<CurriculumOptions>(module, "CurriculumOptions",
                                "How the first rows go from easy to hard.")
      .def(py::init([](const at::Tensor& scores, std::string pacing, double start,
                       std::int64_t rows, double epochs) {
             const at::Tensor flat = scores.to(at::kCPU, at::kDouble).contiguous();
             const double* first = flat.const_data_ptr<double>();
             return CurriculumOptions{
                 {first, first + flat.numel()}, std::move(pacing), start, rows, epochs};
           }),
           py::kw_only(), py::arg("scores"), py::arg("pacing") = "linear", py::arg("start") = 0.1,
           py::arg("rows") = 0, py::arg("epochs") = 0.0,
           "scores: of each document, the easiest lowest; without any there is no curriculum. All "
           "rows are in after so many rows, or epochs, of the run.");

  py::class_<data::Loader, data::BatchSource>(
      module, "Loader", "Batches from token shards in an order that (seed, position) fix.")
      .def(
          py::init(&make_loader), py::kw_only(), py::arg("shards"), py::arg("width"),
          py::arg("rows"), py::arg("time"), py::arg("seed") = 0, py::arg("packing") = "windows",
          py::arg("sequential") = false, py::arg("prefetch") = true, py::arg("end_id"),
          py::arg("start_id"), py::arg("objective") = ObjectiveOptions(),
          py::arg("tokenizer") = std::nullopt, py::arg("dropout") = 0.0,
          py::arg("alpha") = std::nullopt, py::arg("curriculum") = data::CurriculumOptions(),
          py::call_guard<py::gil_scoped_release>(),
          "shards: (tokens path, docs path, number of tokens, number of documents) of each. With a "
          "tokenizer rows are cut anew in every epoch: by the power alpha of the probability of a "
          "cut where it is given, else with merges left out with the probability dropout. "
          "With a curriculum the first rows go from easy to hard.")
      .def("next", &next_batch,
           "The next (input_ids, labels, segments): int64 [rows, time]; segments may be None.")
      .def_property_readonly(
          "batches_per_epoch",
          [](const data::Loader& loader) { return loader.plan().batches_per_epoch(); },
          "Batches that visit every row once (the last one may hold rows of the next epoch).")
      .def_property_readonly(
          "rows_per_epoch",
          [](const data::Loader& loader) { return loader.plan().rows_per_epoch(); },
          "Rows that visit the data once.")
      .def_property_readonly(
          "curriculum_rows",
          [](const data::Loader& loader) { return loader.plan().curriculum_rows(); },
          "Rows from the beginning that a curriculum orders; plain epochs follow.");
  bind_samples(module);
}

}  // namespace omnima::bindings

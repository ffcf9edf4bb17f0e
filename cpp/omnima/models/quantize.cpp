#include "omnima/models/quantize.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <optional>
#include <set>

#include "omnima/core/error.h"
#include "omnima/core/free_memory.h"
#include "omnima/models/calibration.h"
#include "omnima/models/foldable.h"
#include "omnima/quant/methods/method.h"

namespace omnima::models {

using core::ConfigError;
using core::DataError;
using core::require;

namespace {

using Names = std::vector<std::string>;

constexpr std::int64_t kNumbersAtOnce = 1 << 20;  // of a matrix whose rows stand alone

bool is_finite(const at::Tensor& numbers) {
  for (const at::Tensor& part : numbers.reshape({-1}).split(kNumbersAtOnce)) {
    if (!at::isfinite(part).all().item<bool>()) return false;
  }
  return true;
}

// The matrices of a block in the order in which it reaches them, those that read the same inputs
// together: each stage is quantized before the next one sees the text.
const std::vector<std::vector<std::string>> kStages{
    {".q_proj.weight", ".k_proj.weight", ".v_proj.weight"},
    {".o_proj.weight"},
    {".gate_proj.weight", ".up_proj.weight"},
    {".down_proj.weight"}};

bool ends_in_one(const std::string& name, const std::vector<std::string>& ends) {
  return std::any_of(ends.begin(), ends.end(),
                     [&](const std::string& end) { return name.ends_with(end); });
}

class Quantizer {
 public:
  Quantizer(Decoder& model, const QuantizeOptions& options)
      : model_(model), options_(options), method_(quant::method_named(options.method)) {
    const auto& parameters = model.arena().parameters();
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      places_[parameters[i].name] = static_cast<std::int64_t>(i);
    }
    check();
  }

  // The matrices of a block by their parameters' names, in stages: scales move between the matrices
  // of a block, so that a method with scales quantizes all of it at once.
  std::vector<Names> stages(const std::string& prefix) const {
    Names all;
    for (const auto& [name, format] : options_.formats) {
      if (name.starts_with(prefix)) all.push_back(name);
    }
    if (method_.scales != nullptr || !method_.reads_text) return {all};
    std::vector<Names> found;
    for (const auto& ends : kStages) {
      const auto rest = std::stable_partition(
          all.begin(), all.end(), [&](const auto& name) { return ends_in_one(name, ends); });
      if (rest != all.begin()) found.emplace_back(all.begin(), rest);
      all.erase(all.begin(), rest);
    }
    if (!all.empty()) found.push_back(all);
    return found;
  }

  Names outside_blocks() const {
    Names all;
    for (const auto& [name, format] : options_.formats) {
      if (!name.starts_with(kLayers)) all.push_back(name);
    }
    return all;
  }

  std::set<std::int64_t> places_of(const Names& names) const {
    std::set<std::int64_t> found;
    for (const auto& name : names) found.insert(places_.at(name));
    return found;
  }

  void make(const Names& names, Moments& moments) {
    for (const auto& name : names) {
      const std::string& format = options_.formats.at(name);
      made_.push_back({name, format, quantized(leaf(name), format, moments.of(places_.at(name)))});
    }
  }

  // Moves scales from what the matrices of a block read into the matrices.
  void scale(const std::string& prefix, Moments& moments) {
    if (method_.scales == nullptr) return;
    for (const Foldable& fold : foldables(prefix, places_)) {
      const std::int64_t first = places_.at(fold.readers.front());
      if (!moments.of(first).moments.defined() || !all_quantized(fold.readers)) continue;
      // The scales are chosen for those in the format of the first: others have finer ones.
      const std::string& format = options_.formats.at(fold.readers.front());
      std::vector<at::Tensor> weights, deciding;
      for (const auto& name : fold.readers) {
        weights.push_back(leaf(name));
        if (options_.formats.at(name) == format) deciding.push_back(weights.back());
      }
      const at::Tensor s =
          method_.scales(quant::format_named(format), deciding, moments.of(first).moments);
      if (!s.defined()) continue;
      for (const at::Tensor& weight : weights) weight.mul_(s);
      for (const auto& name : fold.writers) {
        const at::Tensor written = leaf(name);
        written.div_(written.dim() == 1 ? s : s.unsqueeze(1));
      }
      moments.divide(first, s);
    }
  }

  // What a stage will change, as it is.
  void keep(const Names& names, Replaced& before) const {
    for (const auto& name : names) before.keep(leaf(name));
  }

  const quant::Method& method() const { return method_; }
  std::vector<QuantizedParameter> take() { return std::move(made_); }

  static constexpr const char* kLayers = "model.layers.";

 private:
  // The blocks of a matrix, which then holds their numbers. Without moments its rows know nothing
  // of each other: a table of all tokens is done in parts, in little memory.
  at::Tensor quantized(const at::Tensor& weight, const std::string& format_name,
                       const quant::TextMoments& text) const {
    const auto& format = quant::format_named(format_name);
    const std::int64_t rows = weight.size(0), inputs = weight.size(1);
    const std::int64_t part =
        text.moments.defined() ? rows : std::max<std::int64_t>(1, kNumbersAtOnce / inputs);
    const at::Tensor blocks = at::empty({rows, format.row_bytes(inputs)}, at::kByte);
    for (std::int64_t first = 0; first < rows; first += part) {
      const std::int64_t count = std::min(part, rows - first);
      const at::Tensor some = weight.narrow(0, first, count);
      const auto levels = method_.quantize(format, some, text);
      some.copy_(levels.numbers());
      blocks.narrow(0, first, count).copy_(levels.blocks());
    }
    return blocks;
  }

  at::Tensor leaf(const std::string& name) const {
    return model_.arena().leaf(places_.at(name)).detach();
  }

  bool all_quantized(const Names& names) const {
    return std::all_of(names.begin(), names.end(),
                       [&](const auto& name) { return options_.formats.contains(name); });
  }

  void check() const {
    require<ConfigError>(!model_.arena().holds(),
                         "The model's matrices are held in blocks already: quantize the model that "
                         "they were made of.");
    for (const auto& [name, format_name] : options_.formats) {
      const auto found = places_.find(name);
      require<ConfigError>(found != places_.end(), "There is no parameter \"", name,
                           "\" to be quantized.");
      const auto& sizes = model_.arena().parameters()[found->second].sizes;
      const auto& format = quant::format_named(format_name);
      require<ConfigError>(sizes.size() == 2 && sizes[1] % format.numbers == 0, "The parameter \"",
                           name, "\" of the shape ", at::IntArrayRef(sizes),
                           " does not lie in blocks of ", format_name, ", which hold ",
                           format.numbers, " numbers.");
      require<ConfigError>(format.grid != nullptr, "No method chooses levels of ", format_name,
                           " (parameter \"", name, "\").");
    }
    for (const auto& [name, place] : places_) {
      require<DataError>(is_finite(model_.arena().leaf(place).detach()), "The parameter \"", name,
                         "\" holds NaN or infinity: the model is damaged, and is not quantized.");
    }
    require<DataError>(model_.arena().weights().is_cpu(),
                       "A model is quantized on the CPU: load it there.");
  }

  Decoder& model_;
  const QuantizeOptions& options_;
  const quant::Method& method_;
  std::map<std::string, std::int64_t> places_;
  std::vector<QuantizedParameter> made_;
};

}  // namespace

std::vector<QuantizedParameter> quantize(
    Decoder& model, const at::Tensor& ids, const QuantizeOptions& options,
    const std::function<void(std::int64_t, std::int64_t)>& progress) {
  const c10::NoGradGuard no_grad;
  const core::LargePiecesApart apart;  // moments, their factors and matrices come in many sizes
  Quantizer quantizer(model, options);
  std::optional<CalibrationText> text;
  const quant::Method& method = quantizer.method();
  if (method.reads_text) {
    require<ConfigError>(ids.defined(), "The method ", options.method,
                         " reads calibration text, but none was given.");
    model.check_ids(ids);
    text.emplace(model, ids, method.follows_drift);
  }
  const std::int64_t layers = model.config().num_hidden_layers;
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    progress(layer, layers);
    const std::string prefix = Quantizer::kLayers + std::to_string(layer) + ".";
    Replaced before;
    for (const Names& stage : quantizer.stages(prefix)) {
      Moments moments(quantizer.places_of(stage));
      if (text) text->show(layer, before, moments);
      core::give_memory_back();  // what the text's pass left
      if (method.follows_drift) quantizer.keep(stage, before);
      quantizer.scale(prefix, moments);
      quantizer.make(stage, moments);
      core::give_memory_back();
    }
    if (text && layer + 1 < layers) text->pass_on(layer, before);
  }
  text.reset();
  Moments none({});
  quantizer.make(quantizer.outside_blocks(), none);
  progress(layers, layers);
  return quantizer.take();
}

}  // namespace omnima::models

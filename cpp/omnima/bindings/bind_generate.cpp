// Generation: the engine, its options and the CPU's levels.
#include <pybind11/functional.h>
#include <pybind11/stl.h>

#include <chrono>
#include <span>
#include <tuple>

#include "omnima/bindings/bindings.h"
#include "omnima/core/error.h"
#include "omnima/generate/engine.h"
#include "omnima/generate/sampler.h"
#include "omnima/kernels/cpu/cpu_features.h"

namespace omnima::bindings {
namespace {

using generate::Engine;
using generate::GenerateOptions;
using generate::Ids;
using Values = std::map<std::string, core::FieldValue>;
using Biases = std::map<std::int64_t, double>;

// Looks for Ctrl-C, seldom enough that taking the interpreter lock costs nothing.
class SignalWatch {
 public:
  void operator()() {
    const auto now = std::chrono::steady_clock::now();
    if (now - last_ < std::chrono::milliseconds(50)) return;
    last_ = now;
    const py::gil_scoped_acquire lock;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

// When the newest token of each sequence came: hears them without Python.
struct TokenClock {
  using Time = std::chrono::steady_clock;
  explicit TokenClock(std::size_t sequences) : seconds(sequences) {}
  void hear(std::int64_t sequence) {
    const std::chrono::duration<double> passed = Time::now() - began;
    seconds.at(static_cast<std::size_t>(sequence)) = passed.count();
  }
  Time::time_point began = Time::now();
  std::vector<double> seconds;
};

// Adapters of a text; none: the base alone.
using Chosen = std::optional<generate::Adapters>;

using Result = std::tuple<Ids, std::string, std::int64_t, std::int64_t, std::int64_t>;

std::vector<Result> run(const Engine& engine, const std::vector<Ids>& prompts, const Values& values,
                        std::vector<std::uint64_t> seeds, Ids stop_ids, const py::object& on_token,
                        std::int64_t known_ids, const py::object& draft,
                        const std::optional<std::vector<Chosen>>& adapters, const py::object& cache,
                        Biases logit_bias) {
  GenerateOptions options = GenerateOptions::from_values(values);
  options.logit_bias = std::move(logit_bias);
  options.stop_ids = std::move(stop_ids);
  options.seeds = std::move(seeds);
  options.known_ids = known_ids;
  generate::Hooks hooks;
  hooks.poll = SignalWatch();
  if (py::isinstance<TokenClock>(on_token)) {
    hooks.on_token = [clock = on_token.cast<TokenClock*>()](std::int64_t sequence, std::int64_t) {
      clock->hear(sequence);
      return true;
    };
  } else if (!on_token.is_none()) {
    hooks.on_token = [&on_token](std::int64_t sequence, std::int64_t id) {
      const py::gil_scoped_acquire lock;
      return on_token(sequence, id).ptr() != Py_False;
    };
  }
  const Engine* ahead = draft.is_none() ? nullptr : draft.cast<const Engine*>();
  std::optional<std::vector<generate::Adapters>> chosen;
  if (adapters) {
    chosen.emplace();
    for (const Chosen& each : *adapters) chosen->push_back(each.value_or(nullptr));
  }
  generate::PromptCache* kept = cache.is_none() ? nullptr : cache.cast<generate::PromptCache*>();
  std::vector<Result> results;
  const py::gil_scoped_release unlock;
  for (auto& written : engine.generate(prompts, options, hooks, ahead, chosen, kept)) {
    results.emplace_back(std::move(written.ids), std::move(written.finish_reason), written.proposed,
                         written.accepted, written.cached);
  }
  return results;
}

std::vector<float> process_logits(std::vector<float> logits, const Ids& seen, const Values& values,
                                  const Ids& written, Biases logit_bias) {
  GenerateOptions options = GenerateOptions::from_values(values);
  options.logit_bias = std::move(logit_bias);
  const auto vocab = static_cast<std::int64_t>(logits.size());
  generate::Sampler sampler(options, 0, vocab);
  const auto check = [&](std::int64_t id) {
    core::require<core::ConfigError>(id >= 0 && id < vocab, "Token id ", id, " is not among the ",
                                     vocab, " logits.");
  };
  for (const auto& [id, bias] : options.logit_bias) check(id);
  for (const std::int64_t id : seen) {
    check(id);
    sampler.saw(id);
  }
  for (const std::int64_t id : written) {
    check(id);
    sampler.wrote(id);
  }
  sampler.process(logits);
  return logits;
}

std::vector<py::dict> describe_options() {
  std::vector<py::dict> all;
  for (const auto& field : GenerateOptions::fields()) {
    py::dict row;
    row["name"] = field.name;
    row["default"] = field.default_value;
    row["meaning"] = field.meaning;
    row["minimum"] = field.minimum;
    row["maximum"] = field.maximum;
    all.push_back(row);
  }
  return all;
}

}  // namespace

void bind_generate(py::module_& module) {
  py::class_<TokenClock>(module, "TokenClock",
                         "An on_token for Engine.generate that only keeps the time.")
      .def(py::init<std::size_t>(), py::arg("sequences"), "Starts the clock.")
      .def_readonly("seconds", &TokenClock::seconds,
                    "From its making to the newest token of each sequence; 0: none came.");
  py::class_<generate::PromptCache>(module, "PromptCache",
                                    "What models remember of texts, from one call to the next.")
      .def(py::init<std::int64_t>(), py::arg("max_bytes"), "Keeps the texts that were used last.")
      .def("clear", &generate::PromptCache::clear, "Forgets all of them.")
      .def_property_readonly("bytes", &generate::PromptCache::bytes, "Memory in use.")
      .def_property_readonly("max_bytes", &generate::PromptCache::max_bytes, "Memory to use.")
      .def("__len__", &generate::PromptCache::texts);
  py::class_<Engine>(module, "Engine",
                     "Writes on from prompts. References the parameters and follows their changes.")
      .def(py::init([](const Values& config, const generate::Parameters& parameters,
                       const generate::Formats& formats, const std::string& activations,
                       generate::HeadOrder head_order, const std::string& device,
                       const Chosen& adapters) {
             return Engine(models::DecoderConfig::from_values(config), parameters, formats,
                           generate::activations_named(activations), std::move(head_order),
                           at::Device(device), adapters.value_or(nullptr));
           }),
           py::arg("config"), py::arg("parameters"), py::arg("formats") = generate::Formats{},
           py::arg("activations") = "float32", py::arg("head_order") = generate::HeadOrder{},
           py::arg("device") = "cpu", py::arg("adapters") = py::none(),
           "From the values of a decoder's configuration and its parameters by canonical name. "
           "Matrices may be float32, float16, bfloat16, or bytes of blocks whose format is named. "
           "What they are multiplied with: float32; rounded: bf16 or int8. Of queries and keys row "
           "head_order[i] of each head is our number i; empty: row i. Parameters that do not lie "
           "on the device are copied there. Adapters stand beside them where a text names none.")
      .def(
          "generate", &run, py::arg("prompts"), py::arg("options"), py::arg("seeds"),
          py::arg("stop_ids") = Ids{}, py::arg("on_token") = py::none(), py::arg("known_ids") = 0,
          py::arg("draft") = py::none(), py::arg("adapters") = py::none(),
          py::arg("prompt_cache") = py::none(), py::arg("logit_bias") = Biases{},
          "Returns (new ids, finish reason, tokens proposed, of these accepted, prompt tokens that "
          "the prompt cache knew) a prompt. "
          "on_token(sequence, id) is called for every "
          "token; when it returns False, its sequence ends. Only ids below known_ids are drawn; 0: "
          "any. adapters: one choice a prompt, None for the base alone. logit_bias: what is added "
          "to "
          "the logits of ids.")
      .def(
          "use", [](Engine& self, const Chosen& adapters) { self.use(adapters.value_or(nullptr)); },
          py::arg("adapters"), "These stand beside the weights now where a text names none.")
      .def(
          "embedding",
          [](const Engine& self, const Ids& ids, const Chosen& adapters) {
            const py::gil_scoped_release unlock;
            return self.embedding(ids, adapters.value_or(nullptr));
          },
          py::arg("ids"), py::arg("adapters") = py::none(),
          "The mean over the tokens of the last hidden states behind the last norm, [hidden].")
      .def_property_readonly("vocab_size", &Engine::vocab_size, "How many ids the model has.")
      .def("page_bytes", &Engine::page_bytes, py::arg("cache_precision") = "fp32",
           "Memory for the keys and values of 32 tokens.")
      .def("logits", &Engine::logits, py::arg("ids"), py::arg("stepwise") = false,
           py::arg("bf16_prompts") = false, py::arg("cache_precision") = "fp32",
           py::call_guard<py::gil_scoped_release>(),
           "Logits after every token, [time, vocab]: by one prefill, or token by token. "
           "bf16_prompts: as with prompt_precision \"bf16\". cache_precision: as the option.");
  module.def("process_logits", &process_logits, py::arg("logits"), py::arg("seen"),
             py::arg("options"), py::arg("written") = Ids{}, py::arg("logit_bias") = Biases{},
             "The logits after biases, penalties, temperature, top-k, top-p and min-p. Of the ids "
             "seen in a text, those that were written follow the others.");
  module.def("generate_option_fields", &describe_options,
             "Name, default, meaning and bounds of every generation option.");
  module.def(
      "why_not_on_gpu",
      [](const Values& config) {
        return generate::why_not_on_device(models::DecoderConfig::from_values(config));
      },
      py::arg("config"),
      "Why a decoder of this configuration cannot write on a GPU; empty: it can.");
  module.def("uniform", &generate::uniform, py::arg("seed"), py::arg("step"),
             "The number in [0, 1) that a sequence with this seed draws at this step.");
  module.def("cpu_features", &kernels::features, "The instruction sets found on this CPU.");
  module.def(
      "cpu_level", [] { return kernels::level_name(kernels::active_level()); },
      "The level of the CPU kernels in use; OMNIMA_CPU_ISA forces one.");
}

}  // namespace omnima::bindings

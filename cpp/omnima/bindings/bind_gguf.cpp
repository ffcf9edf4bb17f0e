// GGUF files for Python: what they hold, tensors as float32, and writing.
#include <ATen/ops/from_blob.h>
#include <pybind11/numpy.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <array>
#include <deque>
#include <optional>
#include <system_error>
#include <thread>
#include <unordered_map>

#include "omnima/bindings/bindings.h"
#include "omnima/bindings/text_list.h"
#include "omnima/core/error.h"
#include "omnima/io/gguf.h"
#include "omnima/quant/convert.h"
#include "omnima/quant/finite_look.h"
#include "omnima/quant/matrix.h"

namespace omnima::bindings {
namespace {

using core::DataError;
using core::require;
using Path = std::filesystem::path;
using Texts = std::vector<std::string_view>;

// Names of the types of values; an array's is its elements' in brackets.
constexpr std::array<const char*, 13> kTypes{"u8",   "i8",  "u16",   "i16", "u32", "i32", "f32",
                                             "bool", "str", "array", "u64", "i64", "f64"};

// Names and matrices of what a look goes over.
class Look {
 public:
  using Stored = std::tuple<std::string, at::Tensor, const quant::Format*>;

  explicit Look(const std::vector<Stored>& tensors) {
    std::vector<quant::Matrix> matrices;
    for (const auto& [name, stored, format] : tensors) {
      if (stored.numel() == 0) continue;
      const at::Tensor bytes = stored.detach().reshape({-1}).view(at::kByte);
      const std::int64_t row = stored.size(-1) * stored.element_size();
      matrices.push_back(quant::matrix_of(*format, bytes, bytes.numel() / row,
                                          row / format->bytes * format->numbers));
      names_.push_back(name);
    }
    look_.emplace(std::move(matrices));
  }
  Look(std::vector<std::string> names, std::vector<quant::Matrix> matrices)
      : names_(std::move(names)), look_(std::in_place, std::move(matrices)) {}

  std::vector<std::string> found() {
    std::vector<std::string> names;
    for (const std::size_t i : look_->found()) names.push_back(names_[i]);
    return names;
  }

 private:
  std::vector<std::string> names_;
  std::optional<quant::FiniteLook> look_;
};

using GivenStored = std::tuple<std::string, at::Tensor, std::string>;

std::unique_ptr<Look> look_at(const std::vector<GivenStored>& tensors) {
  std::vector<Look::Stored> all;
  for (const auto& [name, stored, format] : tensors) {
    all.emplace_back(name, stored, &quant::format_named(format));
  }
  return std::make_unique<Look>(all);
}

// Null: the value is no array of texts.
const Texts* texts_of(const io::GgufValue& value) {
  return value.is_array() ? std::get_if<Texts>(&std::get<1>(value.value)) : nullptr;
}

// Null: the value is no array of whole numbers of up to 63 bits.
const std::vector<std::int64_t>* wholes_of(const io::GgufValue& value) {
  return value.is_array() ? std::get_if<std::vector<std::int64_t>>(&std::get<1>(value.value))
                          : nullptr;
}

class Gguf {
 public:
  Gguf(const Path& path, bool beside) : where_(path.string()) {
    const auto file = std::make_shared<io::GgufFile>();
    file_ = file;
    file->mapping = io::Mapping::open(path);
    if (beside) read_beside();
    file->header = io::parse_gguf(file->mapping->bytes(), where_);
    const auto& tensors = file_->header.tensors;
    for (std::size_t i = 0; i < tensors.size(); ++i) places_.emplace(tensors[i].name, i);
  }

  std::uint32_t version() const { return file_->header.version; }

  py::dict metadata(bool lists) const {
    py::dict all;
    for (const auto& [key, value] : file_->header.metadata) {
      if (const auto* texts = texts_of(value); texts != nullptr && !lists) {
        all[py::str(key)] = TextList(std::shared_ptr<const Texts>(file_, texts));
        continue;
      }
      if (const auto* wholes = wholes_of(value); wholes != nullptr && !lists) {
        all[py::str(key)] =
            py::array_t<std::int64_t>(static_cast<py::ssize_t>(wholes->size()), wholes->data());
        continue;
      }
      all[py::str(key)] = std::visit(
          [](const auto& part) {
            return std::visit([](const auto& each) { return py::object(py::cast(each)); }, part);
          },
          value.value);
    }
    return all;
  }

  std::map<std::string, std::string> types() const {
    std::map<std::string, std::string> all;
    for (const auto& [key, value] : file_->header.metadata) {
      const std::string name = kTypes[static_cast<std::size_t>(value.type)];
      all[key] = value.is_array() ? "[" + name + "]" : name;
    }
    return all;
  }

  using Described = std::tuple<std::string, std::string, std::vector<std::int64_t>>;
  std::vector<Described> tensors() const {
    std::vector<Described> all;
    for (const auto& tensor : file_->header.tensors) {
      all.emplace_back(tensor.name, io::gguf_block(tensor.type)->name, tensor.shape);
    }
    return all;
  }

  at::Tensor tensor(const std::string& name) const {
    const io::GgufTensor& found = find(name);
    const quant::Format& format = format_of(found);
    const py::gil_scoped_release release;
    char* data = file_->mapping->data() + found.begin;
    if (found.type == 0 && reinterpret_cast<std::uintptr_t>(data) % sizeof(float) == 0) {
      const auto mapping = file_->mapping;
      return at::from_blob(data, found.shape, [mapping](void*) {}, at::kFloat);
    }
    return quant::dequantized(format, data, found.shape);
  }

  at::Tensor raw(const std::string& name) const {
    const io::GgufTensor& found = find(name);
    return bytes_of(found, format_of(found));
  }

  // Of a type that Omnima does not read there is nothing to say: it is refused when it is read.
  std::unique_ptr<Look> look() const {
    std::vector<std::string> names;
    std::vector<quant::Matrix> matrices;
    for (const auto& tensor : file_->header.tensors) {
      const quant::Format* format = quant::format_of_gguf_type(tensor.type);
      if (format == nullptr) continue;
      const std::int64_t inputs = tensor.shape.back(), row = format->row_bytes(inputs);
      const std::int64_t outputs = tensor.bytes / row;  // the header's reader has checked them
      matrices.push_back({format, blob(tensor, {outputs, row}), outputs, inputs});
      names.push_back(tensor.name);
    }
    return std::make_unique<Look>(std::move(names), std::move(matrices));
  }

  void read_ahead() const { file_->mapping->read_ahead(); }

 private:
  // Its bytes come into the process's pages beside the caller, as long as this file is there.
  void read_beside() {
    try {
      reading_ = std::jthread([mapping = file_->mapping](const std::stop_token& stop) {
        // Small parts: each holds the process's map of memory, and the caller allocates.
        constexpr std::size_t kPart = 128 << 10;
        for (std::size_t at = 0; at < mapping->size() && !stop.stop_requested(); at += kPart) {
          mapping->read_now(at, kPart);
        }
      });
    } catch (const std::system_error&) {
      // A system that has no thread to spare: what is touched is read then.
    }
  }

  at::Tensor bytes_of(const io::GgufTensor& tensor, const quant::Format& format) const {
    std::vector<std::int64_t> sizes = tensor.shape;
    sizes.back() = format.row_bytes(sizes.back());
    return blob(tensor, sizes);
  }

  // Its bytes where they lie.
  at::Tensor blob(const io::GgufTensor& tensor, at::IntArrayRef sizes) const {
    const auto mapping = file_->mapping;
    return at::from_blob(mapping->data() + tensor.begin, sizes, [mapping](void*) {}, at::kByte);
  }

  const io::GgufTensor& find(const std::string& name) const {
    if (const auto found = places_.find(name); found != places_.end()) {
      return file_->header.tensors[found->second];
    }
    throw DataError(core::message(where_, ": there is no tensor \"", name, "\"."));
  }

  const quant::Format& format_of(const io::GgufTensor& tensor) const {
    const quant::Format* format = quant::format_of_gguf_type(tensor.type);
    if (format != nullptr) return *format;
    std::string known;
    for (const auto* each : quant::formats()) {
      if (each->gguf_type) known += " " + each->name;
    }
    throw DataError(core::message(where_, ", tensor \"", tensor.name, "\": it is of type ",
                                  io::gguf_block(tensor.type)->name,
                                  ", which Omnima does not read; it reads", known, "."));
  }

  std::string where_;
  std::shared_ptr<const io::GgufFile> file_;
  std::unordered_map<std::string_view, std::size_t> places_;  // of tensors, by name
  std::jthread reading_;
};

io::GgufType type_named(const std::string& name) {
  for (std::size_t i = 0; i < kTypes.size(); ++i) {
    if (name == kTypes[i] && name != "array") return static_cast<io::GgufType>(i);
  }
  throw DataError(core::message("GGUF has no type of values \"", name, "\"."));
}

io::GgufValue::Scalar scalar_of(io::GgufType type, py::handle value) {
  switch (type) {
    case io::GgufType::kString:
      return value.cast<std::string>();
    case io::GgufType::kBool:
      return value.cast<bool>();
    case io::GgufType::kF32:
    case io::GgufType::kF64:
      return value.cast<double>();
    case io::GgufType::kU64:
      return value.cast<std::uint64_t>();
    default:
      return value.cast<std::int64_t>();
  }
}

// Texts of a list are put into `texts`, which outlives the value.
io::GgufValue value_of(const std::string& type, py::handle value,
                       std::deque<std::vector<std::string>>& texts) {
  io::GgufValue made;
  if (type.front() != '[') {
    made.type = type_named(type);
    made.value = scalar_of(made.type, value);
    return made;
  }
  made.type = type_named(type.substr(1, type.size() - 2));
  switch (made.type) {
    case io::GgufType::kString:
      texts.push_back(value.cast<std::vector<std::string>>());
      made.value = io::GgufValue::Array(Texts(texts.back().begin(), texts.back().end()));
      break;
    case io::GgufType::kBool:
      made.value = io::GgufValue::Array(value.cast<std::vector<bool>>());
      break;
    case io::GgufType::kF32:
    case io::GgufType::kF64:
      made.value = io::GgufValue::Array(value.cast<std::vector<double>>());
      break;
    case io::GgufType::kU64:
      made.value = io::GgufValue::Array(value.cast<std::vector<std::uint64_t>>());
      break;
    default:
      made.value = io::GgufValue::Array(value.cast<std::vector<std::int64_t>>());
  }
  return made;
}

using GivenPair = std::tuple<std::string, std::string, py::object>;
using GivenTensor = std::tuple<std::string, std::string, at::Tensor>;

void write(const Path& path, const std::vector<GivenPair>& metadata,
           const std::vector<GivenTensor>& tensors) {
  std::deque<std::vector<std::string>> texts;
  io::GgufMetadata pairs;
  for (const auto& [key, type, value] : metadata) {
    pairs.emplace_back(key, value_of(type, value, texts));
  }
  const py::gil_scoped_release release;
  at::Tensor now;  // one tensor is in the file's format at a time
  std::vector<io::GgufBytes> all;
  for (const auto& [name, format_name, tensor] : tensors) {
    const quant::Format& format = quant::format_named(format_name);
    require<core::ConfigError>(format.gguf_type.has_value(), "GGUF has no format ", format_name,
                               ": tensor \"", name, "\" cannot be written in it.");
    std::vector<std::int64_t> shape = tensor.sizes().vec();
    if (tensor.scalar_type() == at::kByte) {  // blocks of the format: rows are bytes
      require<DataError>(
          tensor.is_contiguous() && !shape.empty() && shape.back() % format.bytes == 0, "Tensor \"",
          name, "\" is no whole number of blocks of ", format_name, ".");
      shape.back() = shape.back() / format.bytes * format.numbers;
    } else {
      quant::require_blocks(format, shape);
    }
    all.push_back({name, *format.gguf_type, shape, [&now, &format, &tensor = tensor] {
                     const bool in_blocks = tensor.scalar_type() == at::kByte;
                     now = in_blocks ? tensor : quant::quantized(format, tensor);
                     return now.const_data_ptr();
                   }});
  }
  io::write_gguf(path, pairs, all);
}

}  // namespace

void bind_gguf(py::module_& module) {
  py::class_<Look>(module, "FiniteLook",
                   "Looks for NaN and infinity in a thread of its own, beside what else is done.")
      .def(py::init(&look_at), py::arg("tensors"), py::call_guard<py::gil_scoped_release>(),
           "Begins with tensors (name, numbers as a file holds them, format).")
      .def("found", &Look::found, py::call_guard<py::gil_scoped_release>(),
           "Helps to the end: the names of those in which there is such a number.");
  py::class_<Gguf>(module, "GgufFile",
                   "A GGUF file: checked when opened, its tensors read when asked for. A malformed "
                   "file raises DataError before anything is allocated.")
      .def(py::init<const Path&, bool>(), py::arg("path"), py::arg("beside") = false,
           "With `beside` a thread brings all of it into memory from now on.")
      .def_property_readonly("version", &Gguf::version)
      .def("metadata", &Gguf::metadata, py::arg("lists") = true,
           "Keys and their values. Without lists an array of texts is a TextList, one of whole "
           "numbers of up to 63 bits is an array.")
      .def("types", &Gguf::types, "The type of every value: u32, str, …; [str] for an array.")
      .def("tensors", &Gguf::tensors,
           "Name, type (such as Q4_1) and shape, as torch has it, of every tensor.")
      .def("tensor", &Gguf::tensor, py::arg("name"),
           "A tensor in float32; one that is stored so shares the file's copy-on-write mapping.")
      .def("raw", &Gguf::raw, py::arg("name"),
           "The bytes of a tensor, as they are stored: its shape, but that rows are bytes.")
      .def("look", &Gguf::look, py::call_guard<py::gil_scoped_release>(),
           "Begins to look for NaN and infinity in all tensors, beside what else is done.")
      .def("read_ahead", &Gguf::read_ahead, "Says that all tensors will be read soon.");
  module.def(
      "write_gguf", &write, py::arg("path"), py::arg("metadata"), py::arg("tensors"),
      "Writes keys (name, type, value) and tensors (name, format such as q8_0, numbers or "
      "uint8 rows of its blocks) aside, flushes them to the disk and renames the file into place.");
  module.def(
      "fill_parameter",
      [](const at::Tensor& parameter, const std::string& format, const at::Tensor& stored) {
        return quant::fill(parameter, quant::format_named(format), stored);
      },
      py::arg("parameter"), py::arg("format"), py::arg("stored"),
      py::call_guard<py::gil_scoped_release>(),
      "Writes numbers as a file holds them (blocks as bytes, or one by one) into a float32 "
      "parameter on the CPU, in one pass. False: a NaN or an infinity is among them.");
  module.def(
      "block_of",
      [](const std::string& name) {
        const quant::Format& format = quant::format_named(name);
        return std::pair(format.numbers, format.bytes);
      },
      py::arg("format"), "How many numbers lie in a block of a format, and in how many bytes.");
}

}  // namespace omnima::bindings

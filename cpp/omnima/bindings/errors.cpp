// Maps the core's errors to the Python classes of omnima.errors.
#include "omnima/bindings/bindings.h"
#include "omnima/core/error.h"

namespace omnima::bindings {
namespace {

void raise(const char* name, const std::exception& error) {
  const py::object type = py::module_::import("omnima.errors").attr(name);
  PyErr_SetString(type.ptr(), error.what());
}

}  // namespace

void register_errors() {
  py::register_exception_translator([](std::exception_ptr pointer) {
    if (!pointer) return;
    try {
      std::rethrow_exception(pointer);
    } catch (const core::ConfigError& error) {
      raise("ConfigError", error);
    } catch (const core::DataError& error) {
      raise("DataError", error);
    } catch (const core::NonFiniteError& error) {
      raise("NonFiniteError", error);
    } catch (const core::QueueFullError& error) {
      raise("QueueFullError", error);
    } catch (const core::Error& error) {
      raise("OmnimaError", error);
    }
  });
}

}  // namespace omnima::bindings

// The extension omnima._core: a list of the subjects that register themselves.
#include "omnima/bindings/bindings.h"

namespace omnima::bindings {

#define OMNIMA_SUBJECT(name) void bind_##name(py::module_& module)

OMNIMA_SUBJECT(text);

PYBIND11_MODULE(_core, module) {
  module.doc() = "The C++ core of Omnima. Its public face is the package omnima.";
  module.attr("built_with_torch") = OMNIMA_TORCH_VERSION;
  register_errors();
  bind_text(module);
}

}  // namespace omnima::bindings

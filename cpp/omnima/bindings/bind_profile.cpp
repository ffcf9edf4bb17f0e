// omnima._core: the recorder of scopes, and freed memory, for omnima.profiling.
#include <pybind11/stl.h>

#include "omnima/bindings/bindings.h"
#include "omnima/core/free_memory.h"
#include "omnima/core/scope.h"

namespace omnima::bindings {

void bind_profile(py::module_& module) {
  using core::Span;
  py::class_<Span>(module, "Span", "A recorded scope; times in nanoseconds.")
      .def_property_readonly("name", [](const Span& self) { return std::string(self.name); })
      .def_readonly("begin", &Span::begin)
      .def_readonly("end", &Span::end)
      .def_readonly("thread", &Span::thread)
      .def_readonly("team", &Span::team, "Threads that worked side by side at that time.")
      .def_readonly("flops", &Span::flops)
      .def_readonly("bytes", &Span::bytes);
  module.def("start_recording", &core::start_recording, "Record scopes from now on.");
  module.def("stop_recording", &core::stop_recording,
             "Stop, and return the spans since start_recording().");
  module.def("give_memory_back", &core::give_memory_back,
             "Give memory that was freed, and that the allocator keeps, back to the system.");
}

}  // namespace omnima::bindings

#include "omnima/train/whole_update.h"

#include <c10/util/Exception.h>

#include <new>
#include <string>

#include "omnima/core/error.h"

namespace omnima::train {
namespace {

[[noreturn]] void half_moved(const std::string& reason) {
  throw core::Error(
      "The update of the weights broke off in its middle (" + reason +
      "), so this step can neither be finished nor repeated. Resume the run from its last "
      "checkpoint, with --optimizer adamw_8bit, --offload-optimizer or a smaller model if memory "
      "was short.");
}

}  // namespace

void whole_or_fatal(const std::function<void()>& update) {
  try {
    update();
  } catch (const std::bad_alloc&) {
    half_moved("memory ran out");
  } catch (const c10::Error& error) {
    half_moved(error.what_without_backtrace());
  }
}

}  // namespace omnima::train

#include "omnima/train/flush_denormals.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>

namespace omnima::train {
namespace {

void set_on_all_threads(bool on) {
  at::parallel_for(0, at::get_num_threads(), 1,
                   [on](int64_t, int64_t) { at::globalContext().setFlushDenormal(on); });
}

}  // namespace

FlushDenormals::FlushDenormals() { set_on_all_threads(true); }
FlushDenormals::~FlushDenormals() { set_on_all_threads(false); }

}  // namespace omnima::train

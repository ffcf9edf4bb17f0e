// An update of the weights happens as a whole: who runs out of memory in its middle must not try
// the step again, as one would before it.
#pragma once

#include <functional>

namespace omnima::train {

// Calls update(). Where memory runs out in it, throws a core::Error that nobody takes for a
// shortage that smaller micro-batches mend.
void whole_or_fatal(const std::function<void()>& update);

}  // namespace omnima::train

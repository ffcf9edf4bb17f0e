// The errors of the core: they say what was wrong, where, what was expected and what to do.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

namespace omnima::core {

// Base of all errors thrown on purpose; Python sees omnima.errors.OmnimaError.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A configuration that is unknown, out of bounds or inconsistent; omnima.errors.ConfigError.
class ConfigError : public Error {
 public:
  using Error::Error;
};

// Input data or a file that does not hold what it should; omnima.errors.DataError.
class DataError : public Error {
 public:
  using Error::Error;
};

// A loss or gradient that is not finite; omnima.errors.NonFiniteError.
class NonFiniteError : public Error {
 public:
  using Error::Error;
};

// More is waiting than there may be; omnima.errors.QueueFullError.
class QueueFullError : public Error {
 public:
  using Error::Error;
};

// Joins its arguments as a stream would: message("layer ", 3, " has ", n, " rows").
template <class... Parts>
std::string message(Parts&&... parts) {
  std::ostringstream out;
  (out << ... << std::forward<Parts>(parts));
  return std::move(out).str();
}

// Throws E with the joined message unless the condition holds.
template <class E = Error, class... Parts>
void require(bool condition, Parts&&... parts) {
  if (!condition) throw E(message(std::forward<Parts>(parts)...));
}

}  // namespace omnima::core

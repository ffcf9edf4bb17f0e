// Writes what fuzzers start from: the seeds and the found cases of an entry, a file each.
//   write_seeds ENTRY DIRECTORY
#include <fstream>
#include <iostream>

#include "entries.h"
#include "found.h"

int main(int count, char** arguments) {
  const auto& all = omnima::fuzz::entries();
  for (const auto* entry : all) {
    if (count != 3 || std::string(arguments[1]) != entry->name) continue;
    int number = 0;
    const auto write = [&](const std::string& bytes) {
      std::ofstream file(std::string(arguments[2]) + "/" + std::to_string(number++),
                         std::ios::binary);
      file << bytes;
      return static_cast<bool>(file);
    };
    bool written = true;
    for (const auto& bytes : entry->seeds()) written = write(bytes) && written;
    for (const auto& found : omnima::fuzz::found_cases(entry->name)) {
      written = write(found.bytes) && written;
    }
    std::cout << number << " files to start from\n";
    return written ? 0 : 1;
  }
  std::cerr << "usage: write_seeds ENTRY DIRECTORY\n";
  return 2;
}

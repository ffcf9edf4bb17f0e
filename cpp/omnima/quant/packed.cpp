#include "omnima/quant/packed.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "omnima/quant/formats/bits.h"

namespace omnima::quant {
namespace {

using kernels::BlockLayout;
using kernels::kPackedLine;
using kernels::kPackedOutputs;
using kernels::kPieceInputs;
using kernels::Packed;

// A block as levels from 0 on; where a level of zero lies says Packed::zero.
struct Group {
  std::uint16_t scale = 0, least = 0;  // halves
  std::vector<std::uint8_t> levels;
};

void read_half_bytes(const std::uint8_t* bytes, std::int64_t count, std::uint8_t* levels) {
  for (std::int64_t i = 0; i < count; i += 32) {
    const HalfBytes piece(bytes + i / 2);
    std::copy(piece.at, piece.at + 32, levels + i);
  }
}

// Five bits become eight: levels from -16 on, or from 0 on.
void read_fives(const std::uint8_t* block, std::int64_t at, int zero, std::uint8_t* levels) {
  HalfBytes piece(block + at + 4);
  piece.add_fifth(block + at);
  for (int i = 0; i < 32; ++i) levels[i] = static_cast<std::uint8_t>(piece.at[i] + 128 - zero);
}

void read_group(BlockLayout layout, std::int64_t numbers, const std::uint8_t* block, Group& out) {
  std::uint8_t* levels = out.levels.data();
  out.scale = load_u16(block);
  switch (layout) {
    case BlockLayout::kQ8_0:
    case BlockLayout::kInt8:
      for (std::int64_t i = 0; i < numbers; ++i) levels[i] = block[2 + i] ^ 0x80;
      return;
    case BlockLayout::kQ4_0:
    case BlockLayout::kInt4:
      return read_half_bytes(block + 2, numbers, levels);
    case BlockLayout::kQ4_1:
    case BlockLayout::kInt4Z:
      out.least = load_u16(block + 2);
      return read_half_bytes(block + 4, numbers, levels);
    case BlockLayout::kQ5_0:
      return read_fives(block, 2, 16, levels);
    case BlockLayout::kQ5_1:
      out.least = load_u16(block + 2);
      return read_fives(block, 4, 0, levels);
    default:
      return;
  }
}

std::optional<Packed> layout_of(const Matrix& matrix) {
  const std::int64_t group = matrix.format->numbers;
  Packed out{8, false, matrix.outputs, matrix.inputs, group, nullptr};
  if (const auto& super = matrix.format->super) {
    out.has_least = super->has_least;
    out.part = super->group;
  }
  switch (matrix.format->layout) {
    case BlockLayout::kQ5K:
    case BlockLayout::kQ6K:
      break;
    case BlockLayout::kQ2K:
    case BlockLayout::kQ3K:
    case BlockLayout::kQ4K:
      out.bits = 4;
      break;
    case BlockLayout::kQ8_0:
    case BlockLayout::kInt8:
    case BlockLayout::kQ5_0:
      break;
    case BlockLayout::kQ5_1:
      out.has_least = true;
      break;
    case BlockLayout::kQ4_1:
    case BlockLayout::kInt4Z:
      out.has_least = true;
      [[fallthrough]];
    case BlockLayout::kQ4_0:
    case BlockLayout::kInt4:
      out.bits = 4;
      break;
    default:
      return std::nullopt;
  }
  if (group % kPieceInputs != 0 && group != matrix.inputs) return std::nullopt;
  return out;
}

void write_scales(const Packed& layout, std::uint16_t scale, std::uint16_t least, std::int64_t lane,
                  std::uint8_t* to) {
  store_u16(to + 2 * lane, scale);
  if (layout.has_least) store_u16(to + 2 * (kPackedOutputs + lane), least);
}

// Levels from 0 on of pieces without parts.
void write_levels(const Packed& layout, const std::uint8_t* levels, std::int64_t count,
                  std::int64_t lane, std::uint8_t* to) {
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t quad = i / 4;  // a line each, or a half of its bits
    const std::int64_t place = 4 * lane + i % 4;
    if (layout.bits == 8) {
      to[quad * kPackedLine + place] = levels[i];
    } else {
      std::uint8_t& both = to[quad / 2 * kPackedLine + place];
      both = static_cast<std::uint8_t>(both | levels[i] << 4 * (quad % 2));
    }
  }
}

// Output `lane` of a tile's group that begins at `to`.
void write_group(const Packed& layout, const Group& group, std::int64_t lane, std::uint8_t* to) {
  write_scales(layout, group.scale, group.least, lane, to);
  write_levels(layout, group.levels.data(), std::ssize(group.levels), lane,
               to + layout.scale_bytes());
}

// The same of a group of parts.
void write_super(const Packed& layout, const SuperBlock& block, std::int64_t lane,
                 std::uint8_t* to) {
  write_scales(layout, block.scale, block.least, lane, to);
  to += layout.scale_bytes();
  const std::int64_t parts = kPieceInputs / layout.part;  // of a piece
  for (std::int64_t piece = 0; piece < layout.group_pieces(); ++piece) {
    for (std::int64_t part = 0; part < parts; ++part, to += layout.part_bytes()) {
      to[lane] = static_cast<std::uint8_t>(block.scales[piece * parts + part]);
      if (layout.has_least) to[kPackedOutputs + lane] = block.leasts[piece * parts + part];
    }
    std::uint8_t levels[kPieceInputs];
    for (std::int64_t i = 0; i < kPieceInputs; ++i) {
      levels[i] = static_cast<std::uint8_t>(block.levels[piece * kPieceInputs + i] + layout.zero());
    }
    write_levels(layout, levels, kPieceInputs, lane, to);
    to += layout.level_bytes();
  }
}

}  // namespace

PackedMemory::Part PackedMemory::take(std::int64_t bytes) {
  constexpr std::int64_t kHugePage = 2 << 20, kChunk = 32 << 20;
  bytes = (bytes + kPackedLine - 1) / kPackedLine * kPackedLine;
  if (bytes > end_ - next_) {
    const std::int64_t size = std::max(bytes, kChunk);
    chunk_ = std::make_shared<core::Buffer>();
    auto* memory =
        static_cast<std::uint8_t*>(chunk_->get(static_cast<std::size_t>(size + kHugePage)));
    const auto over = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(memory) %
                                                static_cast<std::uintptr_t>(kHugePage));
    next_ = memory + (kHugePage - over) % kHugePage;
    end_ = next_ + size;
  }
  const Part part{chunk_, next_};
  next_ += bytes;
  return part;
}

std::shared_ptr<const PackedMatrix> packed(const Matrix& matrix, PackedMemory& memory) {
  auto layout = layout_of(matrix);
  if (!layout) return nullptr;
  const auto part = memory.take(layout->bytes());
  layout->data = part.data;
  std::uint8_t* data = part.data;
  const std::int64_t tiles = (matrix.outputs + kPackedOutputs - 1) / kPackedOutputs;
  at::parallel_for(0, tiles, 4, [&](std::int64_t begin, std::int64_t end) {
    Group group;
    group.levels.resize(static_cast<std::size_t>(layout->group));
    SuperBlock super;
    std::fill(data + begin * layout->tile_bytes(), data + end * layout->tile_bytes(),
              std::uint8_t{0});
    const std::int64_t last = std::min(end * kPackedOutputs, matrix.outputs);
    for (std::int64_t output = begin * kPackedOutputs; output < last; ++output) {
      std::uint8_t* to = data + output / kPackedOutputs * layout->tile_bytes();
      const std::int64_t lane = output % kPackedOutputs;
      for (std::int64_t i = 0; i < layout->groups(); ++i, to += layout->group_bytes()) {
        const std::uint8_t* block = matrix.row(output) + i * matrix.format->bytes;
        if (layout->part != 0) {
          matrix.format->super->read(block, super);
          write_super(*layout, super, lane, to);
        } else {
          read_group(matrix.format->layout, layout->group, block, group);
          write_group(*layout, group, lane, to);
        }
      }
    }
  });
  return std::make_shared<const PackedMatrix>(PackedMatrix{*layout, part.owner});
}

}  // namespace omnima::quant

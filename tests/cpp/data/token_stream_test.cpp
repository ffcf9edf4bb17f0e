// Shards as one stream: both widths of ids, reads across borders, and files that are not what they
// should be.
#include "omnima/data/token_stream.h"

#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include "../temporary_directory.h"
#include "omnima/core/error.h"

namespace omnima::data {
namespace {

class TokenStreamTest : public TemporaryDirectoryTest {
 protected:
  template <class T>
  std::string write(const std::string& name, const std::vector<T>& values) {
    std::ofstream file(directory_ / name, std::ios::binary);
    file.write(reinterpret_cast<const char*>(values.data()),
               static_cast<std::streamsize>(values.size() * sizeof(T)));
    return directory_ / name;
  }

  // Shards of 4, 1 and 3 tokens, numbered from `first`.
  template <class Id>
  std::vector<ShardFiles> shards(Id first) {
    std::vector<ShardFiles> all;
    for (const std::vector<std::uint64_t>& ends : {std::vector<std::uint64_t>{1, 4}, {1}, {2}}) {
      const std::string name = std::to_string(all.size());
      const std::uint64_t count = all.size() == 2 ? 3 : ends.back();  // the last document goes on
      std::vector<Id> ids;
      for (std::uint64_t i = 0; i < count; ++i) ids.push_back(first++);
      all.push_back(
          {write(name + ".tokens", ids), write(name + ".docs", ends), count, ends.size()});
    }
    return all;
  }

  template <class F>
  static std::string message_of(F run) {
    try {
      run();
    } catch (const core::Error& error) {
      return error.what();
    }
    return "";
  }
};

TEST_F(TokenStreamTest, ReadsAcrossShardsInBothWidths) {
  for (const int width : {2, 4}) {
    const std::int64_t first = width == 2 ? 65500 : 3000000000;
    const TokenStream stream(
        width == 2 ? shards<std::uint16_t>(65500) : shards<std::uint32_t>(3000000000u), width);
    ASSERT_EQ(stream.size(), 8u);
    for (std::uint64_t start = 0; start <= 8; ++start) {
      std::vector<std::int64_t> out(8 - start);
      stream.read(start, out);
      for (std::size_t i = 0; i < out.size(); ++i) {
        EXPECT_EQ(out[i], first + static_cast<std::int64_t>(start + i));
      }
    }
  }
}

TEST_F(TokenStreamTest, DocumentsEndWhereTheirShardsSay) {
  const TokenStream stream(shards<std::uint16_t>(1), 2);
  EXPECT_EQ(stream.document_ends(), (std::vector<std::uint64_t>{1, 4, 5, 7, 8}));
}

TEST_F(TokenStreamTest, ErrorsNameTheFileAndWhatItHolds) {
  const auto message = [&](auto change, int width = 2) {
    auto files = shards<std::uint16_t>(1);
    change(files);
    return message_of([&] { TokenStream(files, width).document_ends(); });
  };
  EXPECT_EQ(message([](auto&) {}), "");
  EXPECT_NE(message([](auto&) {}, 3).find("width is 3"), std::string::npos);
  EXPECT_NE(message([](auto& files) { files[1].tokens += ".gone"; }).find("cannot be opened"),
            std::string::npos);
  EXPECT_NE(message([](auto& files) {
              files[0].num_tokens = 5;
            }).find("0.tokens: holds 8 bytes instead of 10"),
            std::string::npos);
  EXPECT_NE(message([](auto& files) {
              files[0].num_tokens += std::uint64_t{1} << 63;  // twice this is the file's size again
            }).find("the manifest is damaged"),
            std::string::npos);
  EXPECT_NE(message([](auto& files) { files.clear(); }).find("no token"), std::string::npos);
  EXPECT_NE(message([&](auto& files) {
              files[0].docs = write("bad", std::vector<std::uint64_t>{3, 2});
            }).find("document 1 of shard 0 ends at token 2, not after 3"),
            std::string::npos);
  EXPECT_NE(message([&](auto& files) {
              files[1].docs = write("bad", std::vector<std::uint64_t>{2});
            }).find("the shard is damaged"),
            std::string::npos);
}

TEST_F(TokenStreamTest, ReadingPastTheEndIsAnError) {
  const TokenStream stream(shards<std::uint16_t>(1), 2);
  std::vector<std::int64_t> out(3);
  EXPECT_NE(message_of([&] { stream.read(6, out); }).find("tokens 6..9 asked of a stream of 8"),
            std::string::npos);
}

TEST_F(TokenStreamTest, AMovedFileKeepsItsMemory) {
  MappedFile file(write("bytes", std::vector<char>{'a', 'b'}), 2);
  const std::byte* data = file.data();
  const MappedFile moved(std::move(file));
  EXPECT_EQ(moved.data(), data);
  EXPECT_EQ(static_cast<char>(moved.data()[1]), 'b');
}

}  // namespace
}  // namespace omnima::data

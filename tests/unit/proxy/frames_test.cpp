#include "proxy/frames.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace postern {
namespace {

using Bytes = std::vector<std::uint8_t>;
using testing::ElementsAre;
using testing::StartsWith;

Bytes frame(FrameType type, const Bytes& payload = {}) {
  const auto header = frame_header(type, payload.size());
  Bytes out(header.begin(), header.end());
  out.insert(out.end(), payload.begin(), payload.end());
  return out;
}
Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// What a reader makes of the bytes when they come in these pieces: "open", "status 1 2", "data <bytes>", "malformed: why".
std::vector<std::string> read(const std::vector<Bytes>& pieces, bool* at_boundary = nullptr) {
  std::vector<std::string> seen;
  FrameReader reader;
  for (const Bytes& bytes : pieces) {
    std::span<const std::uint8_t> input(bytes);
    while (true) {
      const FramePiece piece = reader.next(input);
      if (piece.kind == FramePiece::Kind::need_more) break;
      if (piece.kind == FramePiece::Kind::malformed) {
        seen.push_back(std::string("malformed: ") + piece.error);
        return seen;
      }
      if (piece.kind == FramePiece::Kind::data) {
        if (seen.empty() || seen.back().rfind("data ", 0) != 0) seen.emplace_back("data ");
        seen.back().append(piece.data.begin(), piece.data.end());
        continue;
      }
      switch (piece.type) {
        case FrameType::open: seen.emplace_back("open"); break;
        case FrameType::end: seen.emplace_back("end"); break;
        case FrameType::status:
          seen.push_back("status " + std::to_string(piece.payload[0]) + " " + std::to_string(piece.payload[1]));
          break;
        case FrameType::reset: seen.push_back("reset " + std::to_string(piece.payload[0])); break;
        case FrameType::data: seen.emplace_back("a DATA frame as a whole"); break;
      }
    }
    EXPECT_TRUE(input.empty()) << "need_more leaves nothing unread";
  }
  if (at_boundary != nullptr) *at_boundary = reader.at_boundary();
  return seen;
}

TEST(FramesTest, HeaderIsTypeZeroAndLengthBigEndian) {
  EXPECT_THAT(frame_header(FrameType::data, 0x1234), ElementsAre(3, 0, 0x12, 0x34));
  EXPECT_THAT(frame_header(FrameType::end, 0), ElementsAre(4, 0, 0, 0));
  EXPECT_EQ(frame_payload_max, 65532U);
}

const Bytes conversation = frame(FrameType::open) + frame(FrameType::data, {'h', 'e', 'l', 'l', 'o'}) + frame(FrameType::status, {3, 5}) +
                           frame(FrameType::end) + frame(FrameType::reset, {4}) + frame(FrameType::open);
const std::vector<std::string> understood{"open", "data hello", "status 3 5", "end", "reset 4", "open"};

TEST(FramesTest, EveryCutOfTheByteStreamReadsTheSame) {
  EXPECT_EQ(read({conversation}), understood);
  for (std::size_t first = 0; first <= conversation.size(); ++first) {
    for (std::size_t second = first; second <= conversation.size(); ++second) {
      const auto at = [](std::size_t i) { return conversation.begin() + static_cast<std::ptrdiff_t>(i); };
      EXPECT_EQ(read({Bytes(at(0), at(first)), Bytes(at(first), at(second)), Bytes(at(second), conversation.end())}), understood)
          << "cut at " << first << " and " << second;
    }
  }
}

TEST(FramesTest, ByteByByte) {
  std::vector<Bytes> pieces;
  for (const std::uint8_t byte : conversation) pieces.push_back({byte});
  EXPECT_EQ(read(pieces), understood);
}

TEST(FramesTest, TheBoundaryIsBetweenFrames) {
  for (std::size_t size = 0; size <= 13; ++size) {
    bool at_boundary = false;
    read({Bytes(conversation.begin(), conversation.begin() + static_cast<std::ptrdiff_t>(size))}, &at_boundary);
    EXPECT_EQ(at_boundary, size == 0 || size == 4 || size == 13) << size;
  }
}

TEST(FramesTest, ALongestFrameIsReadAndALongerOneRefused) {
  const Bytes longest = frame(FrameType::data, Bytes(frame_payload_max, 'x'));
  EXPECT_EQ(read({longest}), (std::vector<std::string>{"data " + std::string(frame_payload_max, 'x')}));
  for (std::uint8_t low = 0xFD; low != 0; ++low) {
    EXPECT_THAT(read({{3, 0, 0xFF, low}}), ElementsAre("malformed: frame too long"));
  }
}

TEST(FramesTest, EveryOtherTypeIsRefused) {
  for (int type = 0; type < 256; ++type) {
    if (type >= 1 && type <= 5) continue;
    EXPECT_THAT(read({{static_cast<std::uint8_t>(type), 0, 0, 0}}), ElementsAre("malformed: unknown frame type")) << type;
  }
}

TEST(FramesTest, TheReservedByteIsZero) {
  for (std::uint8_t type = 1; type <= 5; ++type) EXPECT_THAT(read({{type, 1, 0, 0}}), ElementsAre("malformed: reserved byte is not zero"));
}

TEST(FramesTest, ControlFramesHaveOneLength) {
  const auto length_of = [](FrameType type) { return type == FrameType::status ? 2U : type == FrameType::reset ? 1U : 0U; };
  for (const FrameType type : {FrameType::open, FrameType::status, FrameType::end, FrameType::reset}) {
    for (std::size_t length : {std::size_t{0}, std::size_t{1}, std::size_t{2}, std::size_t{3}, std::size_t{256}, frame_payload_max}) {
      if (length == length_of(type)) continue;
      EXPECT_THAT(read({frame(type, Bytes(length))}), ElementsAre("malformed: control frame of a wrong length"));
    }
  }
}

TEST(FramesTest, EmptyDataIsRefused) { EXPECT_THAT(read({frame(FrameType::data)}), ElementsAre(StartsWith("malformed: empty"))); }

TEST(FramesTest, NamesAreDistinctAndUnknownCodesHaveOne) {
  EXPECT_EQ(name_of(StatusCode::app_unreachable), "app_unreachable");
  EXPECT_EQ(name_of(static_cast<StatusCode>(99)), "unknown");
  EXPECT_EQ(name_of(static_cast<StatusDetail>(99)), "unknown");
  EXPECT_EQ(name_of(static_cast<ResetCode>(99)), "unknown");
}

}  // namespace
}  // namespace postern

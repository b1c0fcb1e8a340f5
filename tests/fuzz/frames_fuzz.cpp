// Frames from a hostile peer: the first byte of the input says how the rest is cut; whatever the cuts, the reader sees the same, consumes
// all that it is given, and holds nothing.
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>

#include "proxy/frames.hpp"

namespace {

std::string read(std::span<const std::uint8_t> bytes, std::size_t cut) {
  using postern::FramePiece;
  postern::FrameReader reader;
  std::string seen;
  while (!bytes.empty()) {
    std::span<const std::uint8_t> input = bytes.first(cut < bytes.size() ? cut : bytes.size());
    bytes = bytes.subspan(input.size());
    while (true) {
      const std::size_t before = input.size();
      const FramePiece piece = reader.next(input);
      if (piece.kind == FramePiece::Kind::need_more) break;
      if (piece.kind == FramePiece::Kind::malformed) return seen + "malformed " + piece.error;
      if (input.size() > before) std::abort();
      if (piece.kind == FramePiece::Kind::data) {
        if (piece.data.empty() || piece.data.size() > postern::frame_payload_max) std::abort();
        seen.append(piece.data.begin(), piece.data.end());
      } else {
        seen += "frame " + std::to_string(static_cast<int>(piece.type)) + " " + std::to_string(piece.payload[0]) + " " +
                std::to_string(piece.payload[1]) + ";";
      }
    }
    if (!input.empty()) std::abort();
  }
  return seen;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::span<const std::uint8_t> bytes{data + 1, size - 1};
  if (read(bytes, data[0] + 1U) != read(bytes, bytes.size() + 1)) std::abort();
  return 0;
}

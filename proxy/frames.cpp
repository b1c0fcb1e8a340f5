#include "proxy/frames.hpp"

#include <algorithm>

namespace postern {

std::string_view name_of(StatusCode code) {
  switch (code) {
    case StatusCode::accepted: return "accepted";
    case StatusCode::denied: return "denied";
    case StatusCode::no_policy: return "no_policy";
    case StatusCode::app_unreachable: return "app_unreachable";
    case StatusCode::overloaded: return "overloaded";
  }
  return "unknown";
}

std::string_view name_of(StatusDetail detail) {
  switch (detail) {
    case StatusDetail::none: return "";
    case StatusDetail::no_rule: return "no_rule";
    case StatusDetail::identity_unknown: return "identity_unknown";
    case StatusDetail::uid_mismatch: return "uid_mismatch";
    case StatusDetail::identity_rejected: return "identity_rejected";
    case StatusDetail::timeout: return "timeout";
    case StatusDetail::descriptors: return "descriptors";
    case StatusDetail::identity_denied: return "identity_denied";
  }
  return "unknown";
}

std::string_view name_of(ResetCode code) {
  switch (code) {
    case ResetCode::application: return "application";
    case ResetCode::policy_changed: return "policy_changed";
    case ResetCode::truncated: return "truncated";
    case ResetCode::idle: return "idle";
    case ResetCode::drained: return "drained";
    case ResetCode::internal: return "internal";
    case ResetCode::identity_denied: return "identity_denied";
  }
  return "unknown";
}

std::array<std::uint8_t, frame_header_bytes> frame_header(FrameType type, std::size_t payload_bytes) {
  return {static_cast<std::uint8_t>(type), 0, static_cast<std::uint8_t>(payload_bytes >> 8), static_cast<std::uint8_t>(payload_bytes)};
}

namespace {

// The only payload length each control frame has.
std::size_t control_payload_bytes(FrameType type) {
  switch (type) {
    case FrameType::open:
    case FrameType::end: return 0;
    case FrameType::status: return 2;
    case FrameType::reset: return 1;
    case FrameType::data: break;
  }
  return 0;
}

}  // namespace

FramePiece FrameReader::malformed(const char* error) {
  FramePiece piece;
  piece.kind = FramePiece::Kind::malformed;
  piece.error = error;
  return piece;
}

FramePiece FrameReader::next(std::span<const std::uint8_t>& input) {
  FramePiece piece;
  while (true) {
    if (data_left_ > 0) {
      if (input.empty()) return piece;
      piece.kind = FramePiece::Kind::data;
      piece.data = input.first(std::min(data_left_, input.size()));
      data_left_ -= piece.data.size();
      input = input.subspan(piece.data.size());
      return piece;
    }
    const auto hold_up_to = [&](std::size_t want) {
      const std::size_t take = std::min(want - std::min(want, held_), input.size());
      std::copy_n(input.begin(), take, held_bytes_.begin() + static_cast<std::ptrdiff_t>(held_));
      held_ += take;
      input = input.subspan(take);
      return held_ >= want;
    };
    if (!hold_up_to(frame_header_bytes)) return piece;
    const std::uint8_t type = held_bytes_[0];
    const std::size_t length = static_cast<std::size_t>(held_bytes_[2]) << 8 | held_bytes_[3];
    if (type < static_cast<std::uint8_t>(FrameType::open) || type > static_cast<std::uint8_t>(FrameType::reset)) {
      return malformed("unknown frame type");
    }
    if (held_bytes_[1] != 0) return malformed("reserved byte is not zero");
    if (length > frame_payload_max) return malformed("frame too long");
    piece.type = static_cast<FrameType>(type);
    if (piece.type == FrameType::data) {
      if (length == 0) return malformed("empty data frame");  // it would cost us work and say nothing
      held_ = 0;
      data_left_ = length;
      continue;
    }
    if (length != control_payload_bytes(piece.type)) return malformed("control frame of a wrong length");
    if (!hold_up_to(frame_header_bytes + length)) return FramePiece{};
    std::copy_n(held_bytes_.begin() + frame_header_bytes, length, piece.payload.begin());
    held_ = 0;
    piece.kind = FramePiece::Kind::frame;
    return piece;
  }
}

}  // namespace postern

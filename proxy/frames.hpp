// What travels inside TLS between two sidecars (docs/wire.md, ALPN postern/1): frames of a 4-byte header and a payload. No I/O.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace postern {

enum class FrameType : std::uint8_t {
  open = 1,    // outbound side: the next stream begins; no payload
  status = 2,  // inbound side, before any data of its own: StatusCode, detail
  data = 3,    // bytes of the application
  end = 4,     // this direction has ended (FIN); no payload
  reset = 5,   // abort: ResetCode
};

enum class StatusCode : std::uint8_t { accepted = 0, denied = 1, no_policy = 2, app_unreachable = 3, overloaded = 4 };
std::string_view name_of(StatusCode code);

// Why the inbound side said no, beside its StatusCode. A closed list: both sides log the name.
enum class StatusDetail : std::uint8_t {
  none = 0,
  no_rule = 1,           // no rule of the destination's policies matches
  identity_unknown = 2,  // the SPIFFE ID is no workload the inbound side knows
  uid_mismatch = 3,      // a pod of that name, but another one
  identity_rejected = 4,
  timeout = 5,  // the application did not accept in time
  descriptors = 6,
  identity_denied = 7,  // on the deny-list of the mesh
};
std::string_view name_of(StatusDetail detail);

enum class ResetCode : std::uint8_t {
  application = 0,
  policy_changed = 1,
  truncated = 2,
  idle = 3,
  drained = 4,
  internal = 5,
  identity_denied = 6
};
std::string_view name_of(ResetCode code);

inline constexpr std::size_t frame_header_bytes = 4;
inline constexpr std::size_t frame_bytes_max = 64U << 10;  // header and payload: four full TLS records
inline constexpr std::size_t frame_payload_max = frame_bytes_max - frame_header_bytes;
// What an outbound side may send of the application's bytes before it has seen STATUS.
inline constexpr std::size_t early_data_max = 16U << 10;

// type, 0, length (big endian)
std::array<std::uint8_t, frame_header_bytes> frame_header(FrameType type, std::size_t payload_bytes);

// One step of reading: a whole control frame, or a piece of a DATA frame's payload.
struct FramePiece {
  enum class Kind : std::uint8_t { need_more, frame, data, malformed };
  Kind kind = Kind::need_more;
  FrameType type = FrameType::data;       // kind == frame
  std::array<std::uint8_t, 2> payload{};  // kind == frame: what STATUS and RESET carry
  std::span<const std::uint8_t> data;     // kind == data: within the input
  const char* error = nullptr;            // kind == malformed
};

// Reads frames from a byte stream cut anywhere. Holds at most a header and a control payload.
class FrameReader {
 public:
  // Consumes from the front of `input`. After malformed it must not be used again.
  FramePiece next(std::span<const std::uint8_t>& input);
  // True between frames: the byte stream may end here.
  bool at_boundary() const { return held_ == 0 && data_left_ == 0; }

 private:
  FramePiece malformed(const char* error);
  std::array<std::uint8_t, frame_header_bytes + 2> held_bytes_{};
  std::size_t held_ = 0;
  std::size_t data_left_ = 0;
};

}  // namespace postern

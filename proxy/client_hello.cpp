#include "proxy/client_hello.hpp"

#include <algorithm>
#include <optional>
#include <string_view>
#include <vector>

namespace postern {
namespace {

using Bytes = std::span<const std::uint8_t>;

constexpr std::size_t record_header_bytes = 5;     // RFC 8446 section 5.1: type, legacy_record_version, length
constexpr std::size_t handshake_header_bytes = 4;  // RFC 8446 section 4: msg_type, length
constexpr std::size_t max_fragment_bytes = std::size_t{1} << 14;
constexpr std::uint8_t content_type_handshake = 22;
constexpr std::uint8_t handshake_type_client_hello = 1;
constexpr std::uint8_t legacy_major_version = 3;  // SSL 3.0 and every TLS; the minor one MUST be ignored (RFC 8446 section 5.1)
constexpr unsigned extension_alpn = 16;
constexpr std::string_view postern_prefix = "postern/";

ClientHelloResult not_tls() { return {ClientHelloResult::Kind::not_tls, 0, false}; }

ClientHelloResult need(std::size_t total) {
  if (total > max_client_hello_bytes) return not_tls();
  return {ClientHelloResult::Kind::need_more, total, false};
}

// Takes fields from the front of a message; nothing once it is too short.
class Fields {
 public:
  explicit Fields(Bytes bytes) : rest_(bytes) {}
  bool done() const { return rest_.empty(); }

  std::optional<Bytes> take(std::size_t count) {
    if (count > rest_.size()) return std::nullopt;
    const Bytes taken = rest_.first(count);
    rest_ = rest_.subspan(count);
    return taken;
  }
  // A big-endian number of `width` bytes.
  std::optional<std::size_t> number(std::size_t width) {
    const auto taken = take(width);
    if (!taken) return std::nullopt;
    std::size_t value = 0;
    for (const std::uint8_t byte : *taken) value = value << 8U | byte;
    return value;
  }
  // A vector with a length of `width` bytes in front (RFC 8446 section 3.4).
  std::optional<Bytes> vector(std::size_t width) {
    const auto length = number(width);
    return length ? take(*length) : std::nullopt;
  }

 private:
  Bytes rest_;
};

// RFC 7301 section 3.1: ProtocolName protocol_name_list<2..2^16-1>, each opaque<1..2^8-1>. Nothing: malformed.
std::optional<bool> offers_postern(Bytes extension) {
  Fields fields{extension};
  const auto list = fields.vector(2);
  if (!list || list->empty() || !fields.done()) return std::nullopt;
  bool offered = false;
  for (Fields names{*list}; !names.done();) {
    const auto name = names.vector(1);
    if (!name || name->empty()) return std::nullopt;
    const std::string_view text{reinterpret_cast<const char*>(name->data()), name->size()};
    offered = offered || text.starts_with(postern_prefix);
  }
  return offered;
}

ClientHelloResult parse_extensions(Bytes extensions) {
  ClientHelloResult result{ClientHelloResult::Kind::tls, 0, false};
  bool alpn_seen = false;
  for (Fields fields{extensions}; !fields.done();) {
    const auto type = fields.number(2);
    const auto data = fields.vector(2);
    if (!type || !data) return not_tls();
    if (*type != extension_alpn) continue;
    const auto offered = offers_postern(*data);
    if (!offered || alpn_seen) return not_tls();  // RFC 8446 section 4.2: at most one extension of a type
    alpn_seen = true;
    result.postern_alpn = *offered;
  }
  return result;
}

// The message after its handshake header.
ClientHelloResult parse_message(Bytes message) {
  Fields fields{message};
  const auto version = fields.number(2);
  const auto random = fields.take(32);
  const auto session_id = fields.vector(1);
  const auto cipher_suites = fields.vector(2);
  const auto compression_methods = fields.vector(1);
  if (!version || !random || !session_id || !cipher_suites || !compression_methods) return not_tls();
  if (*version >> 8U != legacy_major_version || session_id->size() > 32) return not_tls();
  if (cipher_suites->size() < 2 || cipher_suites->size() % 2 != 0 || compression_methods->empty()) return not_tls();
  if (fields.done()) return {ClientHelloResult::Kind::tls, 0, false};  // before TLS 1.3 a ClientHello may end here
  const auto extensions = fields.vector(2);
  if (!extensions || !fields.done()) return not_tls();
  return parse_extensions(*extensions);
}

// What the handshake bytes at hand say of the length of the whole message, header included. Nothing: not a ClientHello's start.
// The answer is a lower bound until all four bytes of the header are there.
std::optional<std::size_t> message_bytes(Bytes handshake) {
  if (!handshake.empty() && handshake[0] != handshake_type_client_hello) return std::nullopt;
  if (handshake.size() < handshake_header_bytes) return handshake_header_bytes;
  return handshake_header_bytes + (std::size_t{handshake[1]} << 16U | std::size_t{handshake[2]} << 8U | handshake[3]);
}

}  // namespace

ClientHelloResult parse_client_hello(Bytes bytes) {
  if (bytes.size() > max_client_hello_bytes) bytes = bytes.first(max_client_hello_bytes);  // the same answer however much was peeked

  std::vector<std::uint8_t> joined;  // used only from the second record on
  Bytes handshake;
  std::size_t at = 0;
  for (std::size_t records = 0; records < max_client_hello_records; ++records) {
    const Bytes record = bytes.subspan(at);
    if (!record.empty() && record[0] != content_type_handshake) return not_tls();
    if (record.size() > 1 && record[1] != legacy_major_version) return not_tls();
    // Byte by byte here: a short greeting of another protocol must not wait for bytes that never come.
    if (record.size() < record_header_bytes) return need(bytes.size() + 1);

    const std::size_t fragment_bytes = std::size_t{record[3]} << 8U | record[4];
    if (fragment_bytes == 0 || fragment_bytes > max_fragment_bytes) return not_tls();  // RFC 8446 section 5.1
    const Bytes fragment = record.subspan(record_header_bytes, std::min(fragment_bytes, record.size() - record_header_bytes));
    if (at == 0) {
      handshake = fragment;
    } else {
      if (joined.empty()) joined.assign(handshake.begin(), handshake.end());
      joined.insert(joined.end(), fragment.begin(), fragment.end());
      handshake = joined;
    }

    const auto whole = message_bytes(handshake);
    if (!whole || record_header_bytes + *whole > max_client_hello_bytes) return not_tls();
    const bool header_complete = handshake.size() >= handshake_header_bytes;
    if (header_complete && handshake.size() >= *whole) {
      return parse_message(handshake.first(*whole).subspan(handshake_header_bytes));
    }
    if (fragment.size() < fragment_bytes) {
      if (!header_complete) return need(bytes.size() + 1);
      return need(bytes.size() + std::min(*whole - handshake.size(), fragment_bytes - fragment.size()));
    }
    at += record_header_bytes + fragment_bytes;
  }
  return not_tls();
}

}  // namespace postern

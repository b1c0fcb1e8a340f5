// X509Svid: a certificate chain and a key that prove a SPIFFE ID (SPIFFE X509-SVID standard).
#pragma once

#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "base/spiffe_id.hpp"
#include "certs/openssl.hpp"

namespace postern {

using SystemTime = std::chrono::system_clock::time_point;

struct X509Svid {
  std::vector<X509Ptr> chain;  // leaf first, then the intermediates
  KeyPtr key;
  SpiffeId id;
  SystemTime not_before;
  SystemTime not_after;  // of the chain: the earliest
  std::string serial;    // hexadecimal
};

// What one PEM or DER input may make us hold.
inline constexpr std::size_t max_pem_bytes = 1U << 20;
inline constexpr std::size_t max_certificate_bytes = 16U << 10;  // of one certificate, DER
inline constexpr std::size_t max_chain_length = 8;               // certificates that a peer or a chain file may present
inline constexpr std::size_t max_authorities = 64;               // in one trust bundle
inline constexpr std::size_t max_key_bytes = 64U << 10;

// Reads our own SVID: leaf rules of X509-SVID sections 2 to 5 (an extended key usage, when present, must allow both ends of TLS),
// the chain in order, the key that of the leaf. Validity is not looked at: who uses it knows the time. Errors name the rule.
Result<X509Svid> parse_svid(std::string_view chain_pem, std::string_view key_pem);
// The same from DER: certificates one after another, and an unencrypted PKCS#8 key.
Result<X509Svid> parse_svid_der(std::string_view chain_der, std::string_view key_der);

// Every CERTIFICATE block of the text, in order; at most `limit`. Any other kind of block is refused.
Result<std::vector<X509Ptr>> parse_certificates_pem(std::string_view pem, std::size_t limit);
// DER certificates one after another, nothing else; at least one, at most `limit`.
Result<std::vector<X509Ptr>> parse_certificates_der(std::string_view der, std::size_t limit);
// One certificate, all of the input.
Result<X509Ptr> parse_certificate_der(std::string_view der);

Result<SystemTime> not_before_of(const X509* certificate);
Result<SystemTime> not_after_of(const X509* certificate);
Result<std::string> serial_of(const X509* certificate);  // hexadecimal, as `openssl x509 -serial` prints it

std::string utc_text(SystemTime time);  // 2026-01-31T08:00:00Z

// What OpenSSL's calls take; valid as long as the certificates.
BorrowedX509StackPtr borrow(const std::vector<X509Ptr>& certificates);

}  // namespace postern

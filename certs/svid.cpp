#include "certs/svid.hpp"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <ctime>
#include <new>

#include "certs/private_key.hpp"
#include "certs/verify.hpp"

namespace postern {
namespace {

// What PEM_read_bio allocates for one block.
struct PemBlock {
  char* name = nullptr;
  char* header = nullptr;
  unsigned char* data = nullptr;
  long size = 0;

  PemBlock() = default;
  PemBlock(const PemBlock&) = delete;
  PemBlock& operator=(const PemBlock&) = delete;
  ~PemBlock() {
    OPENSSL_free(name);
    OPENSSL_free(header);
    OPENSSL_clear_free(data, static_cast<std::size_t>(size));
  }
  std::string_view der() const { return {reinterpret_cast<const char*>(data), static_cast<std::size_t>(size)}; }
};

BioPtr memory_bio(std::string_view text) { return BioPtr(BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))); }

Error nth(std::size_t n, std::string message) { return Error{"certificate " + std::to_string(n) + ": " + std::move(message), {}}; }

Result<SystemTime> time_of(const ASN1_TIME* time) {
  std::tm tm{};
  if (time == nullptr || ASN1_TIME_to_tm(time, &tm) != 1) {
    ERR_clear_error();
    return Error{"a validity time is not a valid ASN.1 time", {}};
  }
  return std::chrono::system_clock::from_time_t(timegm(&tm));
}

// Takes one certificate off the front.
Result<X509Ptr> take_certificate(std::string_view& der) {
  ERR_clear_error();
  const auto* cursor = reinterpret_cast<const unsigned char*>(der.data());
  X509Ptr certificate(d2i_X509(nullptr, &cursor, static_cast<long>(std::min(der.size(), max_certificate_bytes))));
  if (!certificate) return openssl_error("is not an X.509 certificate of at most " + std::to_string(max_certificate_bytes) + " bytes");
  der.remove_prefix(static_cast<std::size_t>(cursor - reinterpret_cast<const unsigned char*>(der.data())));
  return certificate;
}

}  // namespace

Result<X509Ptr> parse_certificate_der(std::string_view der) {
  if (der.size() > max_certificate_bytes) {
    return Error{"has " + std::to_string(der.size()) + " bytes; at most " + std::to_string(max_certificate_bytes) + " are read", {}};
  }
  ERR_clear_error();
  const auto* cursor = reinterpret_cast<const unsigned char*>(der.data());
  const auto* const end = cursor + der.size();
  X509Ptr certificate(d2i_X509(nullptr, &cursor, static_cast<long>(der.size())));
  if (!certificate) return openssl_error("is not an X.509 certificate");
  if (cursor != end) return Error{"has bytes after the certificate", {}};
  return certificate;
}

Result<std::vector<X509Ptr>> parse_certificates_der(std::string_view der, std::size_t limit) {
  std::vector<X509Ptr> found;
  while (!der.empty()) {
    if (found.size() == limit) return Error{"holds more than " + std::to_string(limit) + " certificates", {}};
    auto certificate = take_certificate(der);
    if (!certificate) return nth(found.size() + 1, certificate.error().message);
    found.push_back(std::move(certificate).value());
  }
  if (found.empty()) return Error{"holds no certificate; expected DER certificates", {}};
  return found;
}

Result<std::vector<X509Ptr>> parse_certificates_pem(std::string_view pem, std::size_t limit) {
  if (pem.size() > max_pem_bytes)
    return Error{"has " + std::to_string(pem.size()) + " bytes; at most " + std::to_string(max_pem_bytes) + " are read", {}};
  ERR_clear_error();
  const BioPtr bio = memory_bio(pem);
  if (!bio) return openssl_error("cannot read");
  std::vector<X509Ptr> found;
  for (;;) {
    PemBlock block;
    if (PEM_read_bio(bio.get(), &block.name, &block.header, &block.data, &block.size) != 1) {
      if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
        return openssl_error("damaged PEM after certificate " + std::to_string(found.size()));
      ERR_clear_error();
      break;
    }
    if (std::string_view(block.name) != PEM_STRING_X509) {
      // Not the block's name: it is anybody's text. A private key among certificates is the mistake worth naming.
      const bool key = std::string_view(block.name).find("PRIVATE KEY") != std::string_view::npos;
      return Error{key ? "holds a private key; expected CERTIFICATE blocks only"
                       : "holds a PEM block that is no CERTIFICATE; expected CERTIFICATE blocks only",
                   {}};
    }
    if (found.size() == limit) return Error{"holds more than " + std::to_string(limit) + " certificates", {}};
    auto certificate = parse_certificate_der(block.der());
    if (!certificate) return nth(found.size() + 1, certificate.error().message);
    found.push_back(std::move(certificate).value());
  }
  if (found.empty()) return Error{"holds no certificate; expected PEM CERTIFICATE blocks", {}};
  return found;
}

namespace {

// REQUIRES: the chain is not empty.
Result<X509Svid> make_svid(std::vector<X509Ptr> chain, Result<KeyPtr> (*parse)(std::string_view), std::string_view key_text) {
  X509* const leaf = chain.front().get();

  LeafCheck check = check_leaf(leaf, TlsEnd::both);
  if (check.error != CertificateError::none) {
    return Error{"certificate 1: " + std::string(describe(check.error)) + (check.detail.empty() ? "" : ": " + check.detail), {}};
  }
  const auto not_before = not_before_of(leaf);
  if (!not_before) return nth(1, not_before.error().message);
  auto not_after = not_after_of(leaf);
  if (!not_after) return nth(1, not_after.error().message);
  auto serial = serial_of(leaf);
  if (!serial) return nth(1, serial.error().message);

  // A peer builds its path from these alone: one that is missing or out of order is better found here than by every peer.
  if (std::string fault = chain_order_fault(chain); !fault.empty()) return Error{std::move(fault), {}};
  for (std::size_t i = 1; i < chain.size(); ++i) {
    // An SVID proves nothing once its chain has ended.
    const auto ends = not_after_of(chain[i].get());
    if (!ends) return nth(i + 1, ends.error().message);
    *not_after = std::min(*not_after, *ends);
  }

  auto key = parse(key_text);
  if (!key) return key.error();
  if (!is_key_of(leaf, key->get())) return Error{"the private key is not that of the first certificate", {}};
  return X509Svid{std::move(chain), std::move(key).value(), std::move(check.id), *not_before, *not_after, std::move(serial).value()};
}

}  // namespace

Result<X509Svid> parse_svid(std::string_view chain_pem, std::string_view key_pem) {
  auto chain = parse_certificates_pem(chain_pem, max_chain_length);
  if (!chain) return Error{"certificate chain: " + chain.error().message, {}};
  return make_svid(std::move(chain).value(), parse_private_key, key_pem);
}

Result<X509Svid> parse_svid_der(std::string_view chain_der, std::string_view key_der) {
  auto chain = parse_certificates_der(chain_der, max_chain_length);
  if (!chain) return Error{"certificate chain: " + chain.error().message, {}};
  return make_svid(std::move(chain).value(), parse_private_key_der, key_der);
}

BorrowedX509StackPtr borrow(const std::vector<X509Ptr>& certificates) {
  BorrowedX509StackPtr stack(sk_X509_new_null());
  for (const X509Ptr& certificate : certificates) {
    if (!stack || sk_X509_push(stack.get(), certificate.get()) == 0) throw std::bad_alloc();
  }
  return stack;
}

Result<SystemTime> not_before_of(const X509* certificate) { return time_of(X509_get0_notBefore(certificate)); }
Result<SystemTime> not_after_of(const X509* certificate) { return time_of(X509_get0_notAfter(certificate)); }

Result<std::string> serial_of(const X509* certificate) {
  const ASN1_INTEGER* serial = X509_get0_serialNumber(certificate);
  // RFC 5280 section 4.1.2.2: at most 20 octets. Twice that is tolerated; it ends up in every log line of the connection.
  const int size = serial == nullptr ? 0 : ASN1_STRING_length(serial);
  if (size < 1 || size > 40) return Error{"the serial number has " + std::to_string(size) + " bytes; expected 1 to 20", {}};
  static constexpr char digits[] = "0123456789ABCDEF";
  std::string text;
  const unsigned char* bytes = ASN1_STRING_get0_data(serial);
  for (int i = 0; i < size; ++i) {
    text += digits[bytes[i] >> 4U];
    text += digits[bytes[i] & 15U];
  }
  return text;
}

std::string utc_text(SystemTime time) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(time);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[32];
  return {text, std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts)};
}

}  // namespace postern

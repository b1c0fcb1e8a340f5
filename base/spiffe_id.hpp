// SPIFFE IDs and trust domains (SPIFFE-ID standard, section 2).
#pragma once

#include <compare>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace postern {

// SPIFFE-ID section 2.1: lower-case letters, digits, '.', '-', '_'; at most 255 bytes.
class TrustDomain {
 public:
  TrustDomain() = default;
  static Result<TrustDomain> parse(std::string_view text);  // "example.org", without the scheme
  const std::string& text() const { return text_; }
  auto operator<=>(const TrustDomain&) const = default;

 private:
  std::string text_;
};

// What an ID of the built-in CA or of SPIRE's usual form says about a pod (architecture section 3).
struct PodIdentity {
  std::string_view ns;
  std::string_view service_account;
  std::string_view pod;  // empty: the ID names only a service account
  std::string_view uid;  // empty: stand-alone form without a UID
};

class SpiffeId {
 public:
  SpiffeId() = default;
  // SPIFFE-ID section 2.3: at most 2048 bytes; section 2.2: no empty, '.' or '..' segment, no trailing slash,
  // letters, digits, '.', '-', '_' only; no port, user info, query or fragment.
  static Result<SpiffeId> parse(std::string_view text);

  const std::string& text() const { return text_; }
  std::string_view trust_domain() const;
  std::string_view path() const;  // with its leading slash; empty for an ID that names the trust domain itself
  // /ns/<ns>/sa/<sa>[/pod/<pod>[/<uid>]]; nothing for any other path. Views into this ID.
  std::optional<PodIdentity> pod() const;

  auto operator<=>(const SpiffeId&) const = default;

 private:
  std::string text_;
};

}  // namespace postern

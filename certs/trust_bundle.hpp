// TrustBundle: the X.509 authorities of one trust domain. TrustBundleSet: one bundle for each domain that we trust.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "base/spiffe_id.hpp"
#include "certs/openssl.hpp"

namespace postern {

using ContentHash = std::array<std::uint8_t, 32>;  // SHA-256

class TrustBundle {
 public:
  // PEM CERTIFICATE blocks, or SPIFFE's JSON (spiffe_bundle.hpp): each a CA certificate that may sign; repeated ones count once. An
  // expired authority is kept: it verifies nothing.
  static Result<TrustBundle> parse(std::string_view text, TrustDomain domain);
  // The same from DER certificates, one after another.
  static Result<TrustBundle> parse_der(std::string_view der, TrustDomain domain);

  // The same from certificates that have been read.
  static Result<TrustBundle> make(std::vector<X509Ptr> certificates, TrustDomain domain);

  const TrustDomain& domain() const { return domain_; }
  const std::vector<X509Ptr>& authorities() const { return authorities_; }
  // The same certificates, for X509_STORE_CTX_set0_trusted_stack.
  STACK_OF(X509) * stack() const { return stack_.get(); }
  // Of the domain and the set of authorities; their order does not count.
  const ContentHash& hash() const { return hash_; }

 private:
  TrustDomain domain_;
  std::vector<X509Ptr> authorities_;
  BorrowedX509StackPtr stack_;
  ContentHash hash_{};
};

class TrustBundleSet {
 public:
  TrustBundleSet() = default;
  void add(TrustBundle bundle);  // replaces the domain's
  void add(std::shared_ptr<const TrustBundle> bundle);
  const TrustBundle* find(std::string_view domain) const;
  ContentHash hash() const;
  std::size_t size() const { return bundles_.size(); }
  const std::map<std::string, std::shared_ptr<const TrustBundle>, std::less<>>& all() const { return bundles_; }  // by trust domain

 private:
  std::map<std::string, std::shared_ptr<const TrustBundle>, std::less<>> bundles_;  // shared: a set is copied with its context
};

}  // namespace postern

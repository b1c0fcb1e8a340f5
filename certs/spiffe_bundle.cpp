#include "certs/spiffe_bundle.hpp"

#include <algorithm>
#include <array>
#include <string>

#include "base/base64.hpp"
#include "base/document.hpp"
#include "certs/svid.hpp"

namespace postern {
namespace {

constexpr std::size_t max_keys = 4 * max_authorities;  // of every use
constexpr DocumentLimits limits{
    .bytes = max_pem_bytes, .nodes = 16'384, .depth = 8, .documents = 1, .scalar_bytes = 2 * max_certificate_bytes};

const std::string* text_at(const Node& node, std::string_view name) {
  const Node* found = node.find(name);
  return found != nullptr && found->is(Node::Kind::string) ? &found->scalar : nullptr;
}

// Null: a key that is not for X.509-SVIDs, or of a type that we do not know.
Result<X509Ptr> authority_of(const Node& key) {
  if (!key.is(Node::Kind::mapping)) return Error{"expected a JWK; found " + std::string(name_of(key.kind)), {}};
  const std::string* const use = text_at(key, "use");
  const std::string* const type = text_at(key, "kty");
  if (type == nullptr) return Error{"kty is missing", {}};
  constexpr std::array<std::string_view, 3> known{"EC", "RSA", "OKP"};
  if (use == nullptr || *use != "x509-svid" || std::find(known.begin(), known.end(), *type) == known.end()) return X509Ptr();
  const Node* const chain = key.find("x5c");
  if (chain == nullptr || !chain->is(Node::Kind::sequence) || chain->items.size() != 1 || !chain->items[0].is(Node::Kind::string))
    return Error{"expected one certificate in x5c", {}};
  // Not base64url (RFC 7517 section 4.7).
  const auto der = from_base64(chain->items[0].scalar);
  if (!der) return Error{"x5c[0] is not base64", {}};
  auto certificate = parse_certificate_der(*der);
  if (!certificate) return Error{"x5c[0] " + certificate.error().message, {}};
  return certificate;
}

// A number from 0; nothing where it is missing.
Result<std::optional<std::uint64_t>> number_at(const Node& root, std::string_view name) {
  const Node* found = root.find(name);
  if (found == nullptr) return std::optional<std::uint64_t>();
  if (!found->is(Node::Kind::integer) || found->integer < 0)
    return Error{"expected a whole number from 0 to 9223372036854775807", std::string(name)};
  return std::optional<std::uint64_t>(static_cast<std::uint64_t>(found->integer));
}

}  // namespace

Result<SpiffeBundle> parse_spiffe_bundle(std::string_view json) {
  const auto document = parse_json(json, "SPIFFE bundle", limits);
  if (!document) return document.error();
  const Node* const keys = document->root.find("keys");
  if (keys == nullptr || !keys->is(Node::Kind::sequence)) return Error{"expected a JWK Set, with a list of keys", "keys"};
  if (keys->items.size() > max_keys) return Error{"holds more than " + std::to_string(max_keys) + " keys", "keys"};
  SpiffeBundle bundle;
  const auto sequence = number_at(document->root, "spiffe_sequence");
  if (!sequence) return sequence.error();
  bundle.sequence = *sequence;
  const auto hint = number_at(document->root, "spiffe_refresh_hint");
  if (!hint) return hint.error();
  constexpr std::uint64_t longest_hint = 366ULL * 24 * 3600;  // beyond it nobody can tell the difference
  if (*hint) bundle.refresh_hint = std::chrono::seconds(std::min(**hint, longest_hint));
  std::vector<X509Ptr>& found = bundle.authorities;
  for (std::size_t i = 0; i < keys->items.size(); ++i) {
    auto authority = authority_of(keys->items[i]);
    if (!authority) return Error{authority.error().message, "keys[" + std::to_string(i) + "]"};
    if (*authority) found.push_back(std::move(*authority));
  }
  if (found.size() > max_authorities) return Error{"holds more than " + std::to_string(max_authorities) + " authorities", "keys"};
  return bundle;
}

}  // namespace postern

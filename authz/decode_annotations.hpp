// The annotations that Postern reads on Kubernetes objects. A value that is none of the expected ones is refused.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "authz/decode_common.hpp"
#include "authz/network_policy.hpp"
#include "authz/workload.hpp"

namespace postern {

struct MtlsAnnotation {
  std::optional<MtlsMode> mode;
  std::vector<std::pair<Port, MtlsMode>> ports;
};

inline constexpr std::size_t max_allowed_trust_domains = 64;  // of one namespace
inline constexpr std::size_t max_allowed_spiffe_ids = 64;     // of one policy

class Annotations {
 public:
  explicit Annotations(const Field& object);

  // postern.dev/enforcement: audit | enforce
  std::optional<EnforcementMode> enforcement() const;
  // postern.dev/replaces: names of NetworkPolicies with commas, none of them `self`. Sorted, each once.
  std::vector<std::string> replaces(std::string_view self) const;
  // postern.dev/allow-trust-domain: trust domains with commas (SPIFFE-ID section 2.1). Sorted, each once; at most
  // max_allowed_trust_domains.
  std::vector<std::string> allow_trust_domains() const;
  // postern.dev/allow-spiffe-ids: whole SPIFFE IDs with a path, with commas. Sorted, each once; at most max_allowed_spiffe_ids.
  std::vector<std::string> allow_spiffe_ids() const;
  // postern.dev/injected: "true" | "false"
  bool injected() const;
  // postern.dev/mtls: a mode, <port>=<mode>, or several of them with commas; at most one mode without a port.
  MtlsAnnotation mtls() const;
  // postern.dev/exclude-inbound-ports, postern.dev/exclude-outbound-ports: port numbers with commas.
  std::vector<Port> excluded_inbound_ports() const { return ports("postern.dev/exclude-inbound-ports"); }
  std::vector<Port> excluded_outbound_ports() const { return ports("postern.dev/exclude-outbound-ports"); }
  // Warns of every postern.dev/ annotation that this kind of object does not know: it does nothing.
  void warn_unknown(std::initializer_list<std::string_view> known) const;

  // As it does for a Pod. The injector reads some of them (docs/injection.md).
  void warn_unknown_of_pod() const;
  // One by its full name, for readers of their own; nullptr: it is not there.
  const std::string* find(std::string_view name) const;
  // Refuses it in the object's Decoding: "Invalid value: <value>: expected <expected>".
  void refuse(std::string_view name, std::string_view value, std::string_view expected) const;

 private:
  // The items of a list with commas, sorted, each once; `fault` says what is wrong with one of them, "" where nothing is.
  std::vector<std::string> names(std::string_view name, std::size_t most, std::string_view expected,
                                 std::string (*fault)(std::string_view)) const;
  std::vector<Port> ports(std::string_view name) const;

  Field field_;
  Labels values_;
};

}  // namespace postern

#include "authz/decode_annotations.hpp"

#include <algorithm>
#include <charconv>

#include "base/spiffe_id.hpp"

namespace postern {
namespace {

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const std::size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

std::vector<std::string_view> split_commas(std::string_view text) {
  std::vector<std::string_view> out;
  while (true) {
    const std::size_t comma = text.find(',');
    out.push_back(trimmed(text.substr(0, comma)));
    if (comma == std::string_view::npos) return out;
    text.remove_prefix(comma + 1);
  }
}

std::optional<MtlsMode> mode_of(std::string_view text) {
  for (const MtlsMode mode : {MtlsMode::strict, MtlsMode::permissive, MtlsMode::spiffe}) {
    if (text == name_of(mode)) return mode;
  }
  return std::nullopt;
}

std::optional<Port> port_of(std::string_view text) {
  std::uint16_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number == 0) return std::nullopt;
  return Port{number};
}

}  // namespace

Annotations::Annotations(const Field& object) : field_(object["metadata"]["annotations"]), values_(field_.strings()) {}

const std::string* Annotations::find(std::string_view name) const {
  const auto found = values_.find(name);
  return found == values_.end() ? nullptr : &found->second;
}

void Annotations::refuse(std::string_view name, std::string_view value, std::string_view expected) const {
  const Node* node = field_.node().find(name);
  field_.decoding().refuse(node == nullptr ? field_.line() : node->line, field_.path() + "[" + std::string(name) + "]",
                           "Invalid value: " + shown(value) + ": expected " + std::string(expected));
}

std::optional<EnforcementMode> Annotations::enforcement() const {
  constexpr std::string_view kName = "postern.dev/enforcement";
  const std::string* value = find(kName);
  if (value == nullptr) return std::nullopt;
  for (const EnforcementMode mode : {EnforcementMode::enforce, EnforcementMode::audit}) {
    if (*value == name_of(mode)) return mode;
  }
  refuse(kName, *value, "\"audit\" or \"enforce\"");
  return std::nullopt;
}

std::vector<std::string> Annotations::replaces(std::string_view self) const {
  constexpr std::string_view kName = "postern.dev/replaces";
  const std::string* value = find(kName);
  std::vector<std::string> out;
  if (value == nullptr) return out;
  for (const std::string_view name : split_commas(*value)) {
    if (!dns_subdomain_faults(name).empty()) {
      refuse(kName, *value, "names of NetworkPolicies of the same namespace with commas between them, such as \"web-allow,web-extra\"");
      return {};
    }
    if (name == self) {
      refuse(kName, *value, "other policies: this one cannot replace itself");
      return {};
    }
    out.emplace_back(name);
  }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

std::vector<std::string> Annotations::names(std::string_view name, std::size_t most, std::string_view expected,
                                            std::string (*fault)(std::string_view)) const {
  const std::string* value = find(name);
  std::vector<std::string> out;
  if (value == nullptr) return out;
  for (const std::string_view item : split_commas(*value)) {
    if (const std::string why = fault(item); !why.empty()) {
      refuse(name, *value, std::string(expected) + "; " + shown(item) + " is none: " + why);
      return {};
    }
    out.emplace_back(item);
  }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  if (out.size() <= most) return out;
  refuse(name, *value, "at most " + std::to_string(most) + " of them; found " + std::to_string(out.size()));
  return {};
}

std::vector<std::string> Annotations::allow_trust_domains() const {
  return names("postern.dev/allow-trust-domain", max_allowed_trust_domains,
               "names of trust domains with commas between them, such as \"partner.example\"", [](std::string_view item) {
                 const auto domain = TrustDomain::parse(item);
                 return domain ? std::string() : domain.error().message;
               });
}

std::vector<std::string> Annotations::allow_spiffe_ids() const {
  return names(allow_spiffe_ids_annotation, max_allowed_spiffe_ids,
               "whole SPIFFE IDs with commas between them, such as \"spiffe://partner.example/billing\"", [](std::string_view item) {
                 if (item.find('*') != std::string_view::npos) return std::string("there are no wildcards; list each SPIFFE ID");
                 const auto id = SpiffeId::parse(item);
                 if (!id) return id.error().message;
                 return id->path().empty() ? std::string("it names a trust domain; put postern.dev/allow-trust-domain on the namespace")
                                           : std::string();
               });
}

bool Annotations::injected() const {
  constexpr std::string_view kName = "postern.dev/injected";
  const std::string* value = find(kName);
  if (value == nullptr || *value == "false") return false;
  if (*value != "true") refuse(kName, *value, "\"true\" or \"false\"");
  return true;
}

MtlsAnnotation Annotations::mtls() const {
  constexpr std::string_view kName = "postern.dev/mtls";
  MtlsAnnotation out;
  const std::string* value = find(kName);
  if (value == nullptr) return out;
  const auto bad = [&] {
    refuse(kName, *value, "strict, permissive or spiffe, alone or with <port>=<mode>, each once, such as \"permissive,8080=spiffe\"");
    return MtlsAnnotation{};
  };
  for (const std::string_view item : split_commas(*value)) {
    const std::size_t equals = item.find('=');
    const auto mode = mode_of(equals == std::string_view::npos ? item : trimmed(item.substr(equals + 1)));
    if (!mode) return bad();
    if (equals == std::string_view::npos) {
      if (out.mode) return bad();
      out.mode = mode;
      continue;
    }
    const auto port = port_of(trimmed(item.substr(0, equals)));
    const auto same = [&](const auto& entry) { return entry.first == *port; };
    if (!port || std::any_of(out.ports.begin(), out.ports.end(), same)) return bad();
    out.ports.emplace_back(*port, *mode);
  }
  std::sort(out.ports.begin(), out.ports.end());
  return out;
}

std::vector<Port> Annotations::ports(std::string_view name) const {
  std::vector<Port> out;
  const std::string* value = find(name);
  if (value == nullptr || trimmed(*value).empty()) return out;
  for (const std::string_view item : split_commas(*value)) {
    const auto port = port_of(item);
    if (!port) {
      refuse(name, *value, "port numbers from 1 to 65535 with commas between them, such as \"9100,9101\"");
      return {};
    }
    out.push_back(*port);
  }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

void Annotations::warn_unknown(std::initializer_list<std::string_view> known) const {
  constexpr std::string_view kPrefix = "postern.dev/";
  for (auto it = values_.lower_bound(kPrefix); it != values_.end() && it->first.starts_with(kPrefix); ++it) {
    const std::string_view name = std::string_view(it->first).substr(kPrefix.size());
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    std::string names;
    for (const std::string_view one : known) names.append(names.empty() ? "" : ", ").append(one);
    field_.warn("the annotation " + shown(it->first) + " means nothing here; known ones are " + names);
  }
}

void Annotations::warn_unknown_of_pod() const {
  warn_unknown({"injected", "mtls", "exclude-inbound-ports", "exclude-outbound-ports", "exclude-cidrs", "proxy-image", "cpu-request",
                "cpu-limit", "memory-request", "memory-limit", "log-level", "drain-period", "egress"});
}

}  // namespace postern

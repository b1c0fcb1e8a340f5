#include "base/spiffe_id.hpp"

#include <algorithm>
#include <array>

namespace postern {
namespace {

constexpr std::string_view kScheme = "spiffe://";
constexpr std::size_t kMaxTrustDomain = 255;
constexpr std::size_t kMaxId = 2048;

bool is_digit_or_lower(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }
bool is_trust_domain_char(char c) { return is_digit_or_lower(c) || c == '.' || c == '-' || c == '_'; }
bool is_segment_char(char c) { return is_trust_domain_char(c) || (c >= 'A' && c <= 'Z'); }

// An ID from a certificate is untrusted: only its beginning goes into a message.
std::string shown(std::string_view text) {
  constexpr std::size_t kShown = 128;
  return text.size() <= kShown ? "\"" + std::string(text) + "\"" : "\"" + std::string(text.substr(0, kShown)) + "...\"";
}

Error bad_id(std::string_view text, std::string why) { return Error{"SPIFFE ID " + shown(text) + ": " + std::move(why), {}}; }

// Why `name` is no trust domain name, or nullptr.
const char* trust_domain_fault(std::string_view name) {
  if (name.empty()) return "the trust domain is missing";
  if (name.size() > kMaxTrustDomain) return "the trust domain is longer than 255 bytes";
  if (!std::all_of(name.begin(), name.end(), is_trust_domain_char)) {
    return "a trust domain has only lower-case letters, digits, '.', '-' and '_'";
  }
  return nullptr;
}

const char* path_fault(std::string_view path) {
  while (!path.empty()) {
    path.remove_prefix(1);  // the slash
    const std::string_view segment = path.substr(0, path.find('/'));
    if (segment.empty()) return "the path has an empty segment or a trailing slash";
    if (segment == "." || segment == "..") return "the path has a '.' or '..' segment";
    if (!std::all_of(segment.begin(), segment.end(), is_segment_char)) {
      return "a path segment has only letters, digits, '.', '-' and '_'";
    }
    path.remove_prefix(segment.size());
  }
  return nullptr;
}

}  // namespace

Result<TrustDomain> TrustDomain::parse(std::string_view text) {
  if (const char* fault = trust_domain_fault(text)) return Error{"trust domain " + shown(text) + ": " + fault, {}};
  TrustDomain out;
  out.text_ = text;
  return out;
}

Result<SpiffeId> SpiffeId::parse(std::string_view text) {
  if (text.size() > kMaxId) return bad_id(text, "longer than 2048 bytes");
  if (!text.starts_with(kScheme)) return bad_id(text, "expected spiffe://<trust-domain>/<path>");
  const std::string_view rest = text.substr(kScheme.size());
  const std::size_t slash = std::min(rest.find('/'), rest.size());
  if (const char* fault = trust_domain_fault(rest.substr(0, slash))) return bad_id(text, fault);
  if (const char* fault = path_fault(rest.substr(slash))) return bad_id(text, fault);
  SpiffeId out;
  out.text_ = text;
  return out;
}

std::string_view SpiffeId::trust_domain() const {
  if (text_.empty()) return {};
  const std::string_view rest = std::string_view(text_).substr(kScheme.size());
  return rest.substr(0, rest.find('/'));
}

std::string_view SpiffeId::path() const {
  if (text_.empty()) return {};
  return std::string_view(text_).substr(kScheme.size() + trust_domain().size());
}

std::optional<PodIdentity> SpiffeId::pod() const {
  std::array<std::string_view, 7> segments;
  std::size_t count = 0;
  for (std::string_view path = this->path(); !path.empty(); ++count) {
    if (count == segments.size()) return std::nullopt;
    path.remove_prefix(1);
    segments[count] = path.substr(0, path.find('/'));
    path.remove_prefix(segments[count].size());
  }
  if (count < 4 || count == 5 || segments[0] != "ns" || segments[2] != "sa") return std::nullopt;
  if (count > 4 && segments[4] != "pod") return std::nullopt;
  return PodIdentity{.ns = segments[1], .service_account = segments[3], .pod = segments[5], .uid = segments[6]};
}

}  // namespace postern

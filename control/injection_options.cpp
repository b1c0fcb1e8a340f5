#include "control/injection_options.hpp"

#include <algorithm>

#include "authz/decode_annotations.hpp"
#include "base/config_values.hpp"
#include "base/document_writer.hpp"
#include "control/quantity.hpp"

namespace postern {
namespace {

// An image without its tag and digest.
std::string_view repository_of(std::string_view image) {
  image = image.substr(0, image.find('@'));
  const std::size_t colon = image.rfind(':');
  const std::size_t slash = image.rfind('/');
  const bool has_tag = colon != std::string_view::npos && (slash == std::string_view::npos || colon > slash);
  return has_tag ? image.substr(0, colon) : image;
}

bool is_image(std::string_view text) {
  constexpr std::size_t kLongest = 512;
  constexpr std::string_view kSigns = "._-/:@";
  return !text.empty() && text.size() <= kLongest && std::all_of(text.begin(), text.end(), [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || kSigns.find(c) != std::string_view::npos;
  });
}

void read_image(const Annotations& annotations, const InjectionSettings& settings, InjectionOptions& out) {
  constexpr std::string_view kName = "postern.dev/proxy-image";
  const std::string* value = annotations.find(kName);
  if (value == nullptr) return;
  if (settings.proxy_images == ProxyImages::none) {
    annotations.refuse(kName, *value, "no such annotation: the mesh permits no image but its own (proxyImages); remove it");
  } else if (!is_image(*value)) {
    annotations.refuse(kName, *value, "an image reference, such as " + settings.image);
  } else if (settings.proxy_images == ProxyImages::same_repository && repository_of(*value) != repository_of(settings.image)) {
    annotations.refuse(
        kName, *value,
        "another tag or digest of " + std::string(repository_of(settings.image)) + ": the mesh permits no other (proxyImages)");
  } else {
    out.image = *value;
  }
}

void read_quantity(const Annotations& annotations, std::string_view name, std::string_view example, std::string& out) {
  const std::string* value = annotations.find(name);
  if (value == nullptr) return;
  if (parse_quantity(*value)) {
    out = *value;
  } else {
    annotations.refuse(name, *value, "a quantity such as " + std::string(example));
  }
}

void check_limit(const Annotations& annotations, std::string_view name, const std::string& request, const std::string& limit) {
  if (request.empty() || limit.empty() || *parse_quantity(request) <= *parse_quantity(limit)) return;
  annotations.refuse(name, limit, "a limit that is not below the request, " + request);
}

void read_resources(const Annotations& annotations, InjectionOptions& out) {
  read_quantity(annotations, "postern.dev/cpu-request", "10m", out.cpu_request);
  read_quantity(annotations, "postern.dev/cpu-limit", "500m", out.cpu_limit);
  read_quantity(annotations, "postern.dev/memory-request", "32Mi", out.memory_request);
  read_quantity(annotations, "postern.dev/memory-limit", "256Mi", out.memory_limit);
  check_limit(annotations, "postern.dev/cpu-limit", out.cpu_request, out.cpu_limit);
  check_limit(annotations, "postern.dev/memory-limit", out.memory_request, out.memory_limit);
}

void read_cidrs(const Annotations& annotations, InjectionOptions& out) {
  constexpr std::string_view kName = "postern.dev/exclude-cidrs";
  const std::string* value = annotations.find(kName);
  if (value == nullptr) return;
  for (std::string_view rest = *value; !rest.empty();) {
    const std::size_t comma = std::min(rest.find(','), rest.size());
    std::string item(rest.substr(0, comma));
    std::erase(item, ' ');
    rest.remove_prefix(std::min(comma + 1, rest.size()));
    const auto cidr = Cidr::parse(item);
    if (!cidr || cidr->prefix() == 0) {
      annotations.refuse(kName, *value,
                         "CIDR blocks with commas between them, none of them everything, such as \"169.254.169.254/32,fd00:1::/64\"");
      return;
    }
    out.exclude_cidrs.push_back(std::move(item));
  }
}

void read_log_level(const Annotations& annotations, InjectionOptions& out) {
  constexpr std::string_view kName = "postern.dev/log-level";
  const std::string* value = annotations.find(kName);
  if (value == nullptr) return;
  for (const auto& [name, level] : config_value::log_levels) {
    if (name != *value) continue;
    out.log_level = level;
    return;
  }
  annotations.refuse(kName, *value, "debug, info, warning or error");
}

void read_drain_period(const Annotations& annotations, InjectionOptions& out) {
  constexpr std::string_view kName = "postern.dev/drain-period";
  const std::string* value = annotations.find(kName);
  if (value == nullptr) return;
  const auto duration = config_value::read_duration(make_text(*value), true, std::chrono::milliseconds{1});
  if (duration) {
    out.drain_period = *duration;
  } else {
    annotations.refuse(kName, *value, "a duration such as 500ms, 20s or 1m30s");
  }
}

std::optional<bool> read_label(const Field& labels) {
  const Labels values = labels.strings();
  const auto found = values.find(inject_label);
  if (found == values.end()) return std::nullopt;
  if (found->second == "enabled") return true;
  if (found->second == "disabled") return false;
  labels.refuse("Invalid value: the label " + std::string(inject_label) + " is " + shown(found->second) +
                ": expected \"enabled\", or \"disabled\" to opt out");
  return std::nullopt;
}

}  // namespace

InjectionOptions read_injection_options(const Field& pod, const InjectionSettings& settings) {
  InjectionOptions out;
  out.image = settings.image;
  out.cpu_request = settings.resources.cpu_request;
  out.cpu_limit = settings.resources.cpu_limit;
  out.memory_request = settings.resources.memory_request;
  out.memory_limit = settings.resources.memory_limit;
  out.log_level = settings.log_level;
  out.drain_period = settings.drain_period;
  out.inject = read_label(pod["metadata"]["labels"]);
  const Annotations annotations(pod);
  annotations.mtls();
  annotations.injected();
  out.exclude_inbound_ports = annotations.excluded_inbound_ports();
  out.exclude_outbound_ports = annotations.excluded_outbound_ports();
  read_cidrs(annotations, out);
  read_image(annotations, settings, out);
  read_resources(annotations, out);
  read_log_level(annotations, out);
  read_drain_period(annotations, out);
  annotations.warn_unknown_of_pod();
  return out;
}

}  // namespace postern

#include "control/kube_config.hpp"

#include <charconv>
#include <filesystem>
#include <optional>
#include <string_view>

#include "authz/decode_common.hpp"
#include "base/base64.hpp"
#include "base/document_files.hpp"
#include "base/https_url.hpp"

namespace postern {
namespace {

constexpr std::size_t kFileBytes = 1U << 20;

std::string trimmed(std::string text) {
  constexpr std::string_view kSpace = " \t\r\n";
  text.erase(text.find_last_not_of(kSpace) + 1);
  text.erase(0, text.find_first_not_of(kSpace));
  return text;
}

std::optional<std::uint16_t> port_of(std::string_view text) {
  std::uint16_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number == 0) return std::nullopt;
  return number;
}

// "https://host[:port][/base]" into the configuration; what was wrong with it otherwise.
std::optional<std::string> split_url(std::string_view url, KubeConfig& out) {
  if (url.starts_with("http://")) return "the API server is spoken to over TLS only; write https://";
  if (url.find_first_of("?#@ \t\r\n") != std::string_view::npos)
    return "expected https://HOST[:PORT][/PATH] without user, query, fragment or spaces";
  const auto parsed = parse_https_url(url);
  if (!parsed) return parsed.error().message;
  out.host = parsed->host;
  out.port = parsed->port;
  out.base_path = parsed->path;
  while (out.base_path.ends_with('/')) out.base_path.pop_back();
  return std::nullopt;
}

// Reads the three parts of a kubeconfig that the current context names. Other fields are other programs' business.
class KubeconfigReader {
 public:
  KubeconfigReader(const std::string& path, const Document& document)
      : folder_(std::filesystem::path(path).parent_path()), decoding_(path), root_(decoding_, document.root) {
    out_.source = path;
  }

  Result<KubeConfig> read() {
    const Field current = root_["current-context"];
    const std::string name = current.string();
    if (name.empty()) current.refuse("Required value: the name of one of contexts; set it with: kubectl config use-context NAME");
    const auto context = named("contexts", "context", name, current);
    if (context) {
      const auto cluster = named("clusters", "cluster", (*context)["cluster"].string(), (*context)["cluster"]);
      if (cluster) read_cluster(*cluster);
      const auto user = named("users", "user", (*context)["user"].string(), (*context)["user"]);
      if (user) read_user(*user);
    }
    if (!decoding_.ok()) return decoding_.error();
    return std::move(out_);
  }

 private:
  // The `part` of the entry of that name in the list; `referrer` is the field that names it.
  std::optional<Field> named(std::string_view list, std::string_view part, const std::string& name, const Field& referrer) {
    if (!decoding_.ok()) return std::nullopt;
    for (const Field& item : root_[list].items()) {
      if (item["name"].string() == name) return item[part];
    }
    if (decoding_.ok()) referrer.refuse("there is no entry named " + shown(name) + " in " + std::string(list) + " of this file");
    return std::nullopt;
  }

  KubeCredential file(const Field& field) {
    const std::filesystem::path path = field.string();
    if (path.empty()) return {};
    KubeCredential out{.file = (path.is_absolute() ? path : folder_ / path).string(), .text = {}};
    const auto text = out.read();
    if (!text) field.refuse(text.error().text());
    return out;
  }

  // The data stands before the file where both are given, as for kubectl.
  KubeCredential file_or_data(const Field& part, const std::string& name) {
    const Field data = part[name + "-data"];
    const std::string text = trimmed(data.string());
    if (text.empty()) return file(part[name]);
    auto decoded = from_base64(text);
    if (!decoded) data.refuse("expected base64 (of PEM), found other text");
    return {.file = {}, .text = decoded ? std::move(*decoded) : std::string()};
  }

  void read_cluster(const Field& cluster) {
    const Field server = cluster["server"];
    if (const auto problem = split_url(server.string(), out_)) server.refuse(shown(server.string()) + ": " + *problem);
    if (cluster["insecure-skip-tls-verify"].boolean()) {
      cluster["insecure-skip-tls-verify"].refuse(
          "whoever answers could then set every policy; remove it and give certificate-authority (or certificate-authority-data)");
    }
    if (!cluster["proxy-url"].string().empty()) cluster["proxy-url"].refuse("is not supported; the API server must be reachable directly");
    out_.server_name = cluster["tls-server-name"].string(out_.host);
    if (out_.server_name.empty()) out_.server_name = out_.host;
    out_.authority = file_or_data(cluster, "certificate-authority");
  }

  void read_user(const Field& user) {
    for (const char* name : {"exec", "auth-provider", "username", "password", "as"}) {
      if (user[name].present()) user[name].refuse("is not supported; expected token, tokenFile, or client-certificate and client-key");
    }
    const Field token = user["token"];
    const std::string text = trimmed(token.string());
    if (text.find_first_of("\r\n") != std::string::npos) token.refuse("expected one line");
    out_.token.text = text;
    if (user["tokenFile"].present()) out_.token = file(user["tokenFile"]);  // it wins, as for client-go
    out_.client_certificate = file_or_data(user, "client-certificate");
    out_.client_key = file_or_data(user, "client-key");
    if (out_.client_certificate.empty() != out_.client_key.empty()) {
      user.refuse(std::string(out_.client_key.empty() ? "client-key" : "client-certificate") +
                  " is missing: a client certificate and its key go together");
    }
  }

  std::filesystem::path folder_;
  Decoding decoding_;
  Field root_;
  KubeConfig out_;
};

}  // namespace

Result<std::string> KubeCredential::read() const {
  if (file.empty()) return text;
  auto read = read_file(file, kFileBytes);
  if (!read) return read.error();
  if (trimmed(*read).empty()) return Error{"is empty", file};
  return std::move(*read);
}

Result<KubeConfig> load_kubeconfig(const std::string& path) {
  const auto text = read_file(path, kFileBytes);
  if (!text) return Error{text.error().message + "; expected a kubeconfig file", path};
  const auto documents = parse_yaml(*text, path);
  if (!documents) return documents.error();
  if (documents->size() != 1) return Error{"expected one YAML document, a kubeconfig, found " + std::to_string(documents->size()), path};
  return KubeconfigReader(path, documents->front()).read();
}

Result<KubeConfig> in_cluster_config(const std::map<std::string, std::string>& environment, const std::string& folder) {
  const auto variable = [&](const char* name) {
    const auto found = environment.find(name);
    return found == environment.end() ? std::string() : found->second;
  };
  const std::string remedy = " is not set, so this is no pod of a cluster; name a kubeconfig file with --kubeconfig";
  KubeConfig out;
  out.source = "in-cluster";
  out.host = variable("KUBERNETES_SERVICE_HOST");
  if (out.host.empty()) return Error{"the environment variable KUBERNETES_SERVICE_HOST" + remedy, "in-cluster configuration"};
  const std::string port = variable("KUBERNETES_SERVICE_PORT");
  if (port.empty()) return Error{"the environment variable KUBERNETES_SERVICE_PORT" + remedy, "in-cluster configuration"};
  const auto number = port_of(port);
  if (!number)
    return Error{"KUBERNETES_SERVICE_PORT is " + shown(port) + "; expected a port between 1 and 65535", "in-cluster configuration"};
  out.port = *number;
  out.server_name = out.host;
  out.token.file = folder + "/token";
  out.authority.file = folder + "/ca.crt";
  for (const KubeCredential* credential : {&out.token, &out.authority}) {
    const auto text = credential->read();
    if (!text)
      return Error{text.error().message + "; the pod needs a service account token: check automountServiceAccountToken", credential->file};
  }
  return out;
}

}  // namespace postern

// KubeConfig: where the API server is and how to speak to it, from a kubeconfig file or from what Kubernetes puts into every pod.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "base/result.hpp"
#include "certs/trust_bundle.hpp"

namespace postern {

// A secret or certificate that stands in the configuration itself, or in a file that may be replaced while we run (then `file` is not
// empty).
struct KubeCredential {
  std::string file;
  std::string text;

  bool empty() const { return file.empty() && text.empty(); }
  // The text, or what the file holds now (at most 1 MiB). Errors name the file.
  Result<std::string> read() const;
};

// A server that proves itself by an X.509-SVID (X509-SVID section 5) instead of a certificate for its name. One thread.
struct SpiffeServer {
  SpiffeId id;
  TrustBundleSet bundles;
  std::string refusal;  // why the latest certificate was refused
};

struct KubeConfig {
  std::string source;  // the file or "in-cluster", for messages
  std::string host;    // name or address, an IPv6 one without brackets
  std::uint16_t port = 443;
  std::string base_path;              // of the server's URL; no slash at its end
  std::string server_name;            // what the server's certificate must name: `host` unless tls-server-name says otherwise
  KubeCredential authority;           // PEM; empty: the system's authorities
  KubeCredential client_certificate;  // PEM; empty where a token is used
  KubeCredential client_key;
  KubeCredential token;
  std::shared_ptr<SpiffeServer> spiffe_server;  // null: the certificate must name `server_name`, of `authority`
};

// The current-context of a kubeconfig file (clientcmd/api/v1). What would weaken the check of the server's certificate and ways to log in
// that would start programs are refused. Errors name file, field and remedy.
Result<KubeConfig> load_kubeconfig(const std::string& path);

// What a pod finds (rest.InClusterConfig): KUBERNETES_SERVICE_HOST and _PORT in `environment`, and token and ca.crt in `folder`.
inline constexpr const char* service_account_folder = "/var/run/secrets/kubernetes.io/serviceaccount";
Result<KubeConfig> in_cluster_config(const std::map<std::string, std::string>& environment,
                                     const std::string& folder = service_account_folder);

}  // namespace postern

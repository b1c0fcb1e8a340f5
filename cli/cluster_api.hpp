// ClusterApi: the Kubernetes API as a command asks it: one request after another, waiting for each answer.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/document.hpp"
#include "base/result.hpp"
#include "control/kube_config.hpp"

namespace postern::cli {

// The file of --kubeconfig, else of $KUBECONFIG, else a pod's own service account, else ~/.kube/config. Errors name what was looked for.
Result<KubeConfig> find_kubeconfig(std::string_view option);

struct ApiReply {
  unsigned status = 0;
  Node body;  // null where it is no JSON

  bool ok() const { return status >= 200 && status < 300; }
};

class ClusterApi {
 public:
  explicit ClusterApi(KubeConfig config);
  ~ClusterApi();
  ClusterApi(const ClusterApi&) = delete;
  ClusterApi& operator=(const ClusterApi&) = delete;

  // An Error: no answer within 15 s. A refusal is an answer.
  Result<ApiReply> ask_get(const std::string& path);
  Result<ApiReply> ask_create(const std::string& path, const std::string& json);
  // The object; an Error also where the API server refuses, with its words.
  Result<Node> get(const std::string& path);
  // What stands there, whatever it is; refusals as with get().
  Result<std::string> get_text(const std::string& path);
  // Every object of a collection, with apiVersion and kind as a manifest has them.
  Result<std::vector<Node>> list(const std::string& path, std::string_view api_version, std::string_view kind);

 private:
  class Connection;
  std::unique_ptr<Connection> connection_;
};

}  // namespace postern::cli

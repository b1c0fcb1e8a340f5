#include "cli/cluster_api.hpp"

#include <array>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <cstdlib>
#include <map>
#include <optional>

#include "base/document_writer.hpp"
#include "control/kube_client.hpp"
#include "control/watch_decoder.hpp"

namespace postern::cli {
namespace {

constexpr DocumentLimits answer_limits{.bytes = 64U << 20, .nodes = 5'000'000, .depth = 64, .documents = 1, .scalar_bytes = 8U << 20};
constexpr std::chrono::milliseconds patience{15'000};

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

}  // namespace

Result<KubeConfig> find_kubeconfig(std::string_view option) {
  if (!option.empty()) return load_kubeconfig(std::string(option));
  if (const std::string path = environment("KUBECONFIG"); !path.empty()) return load_kubeconfig(path);
  constexpr std::array names{"KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"};
  std::map<std::string, std::string> pod;
  for (const char* name : names) pod[name] = environment(name);
  if (!pod[names[0]].empty()) return in_cluster_config(pod);
  const std::string home = environment("HOME");
  if (home.empty()) return Error{"no cluster is named; expected --kubeconfig FILE, or $KUBECONFIG", {}};
  return load_kubeconfig(home + "/.kube/config");
}

class ClusterApi::Connection {
 public:
  explicit Connection(KubeConfig config) : client_(io_, std::move(config)) {}

  // Runs the coroutine to its end.
  Result<KubeResponse> wait(boost::asio::awaitable<Result<KubeResponse>> work) {
    std::optional<Result<KubeResponse>> out;
    const auto run = [](boost::asio::awaitable<Result<KubeResponse>> awaited, std::optional<Result<KubeResponse>>& into,
                        boost::asio::io_context& io) -> boost::asio::awaitable<void> {
      into = co_await std::move(awaited);
      io.stop();  // idle connections would keep it running
    };
    io_.restart();
    boost::asio::co_spawn(io_, run(std::move(work), out, io_), boost::asio::detached);
    io_.run();
    return out ? *std::move(out) : Result<KubeResponse>(Error{"the request did not end", {}});
  }

  KubeClient& client() { return client_; }

 private:
  boost::asio::io_context io_{1};
  KubeClient client_;
};

ClusterApi::ClusterApi(KubeConfig config) : connection_(std::make_unique<Connection>(std::move(config))) {}
ClusterApi::~ClusterApi() = default;

namespace {

KubeRequest request_for(const std::string& path) {
  KubeRequest request;
  request.path = path;
  request.deadline = patience;
  request.body_bytes = answer_limits.bytes;
  return request;
}

Result<ApiReply> reply_of(Result<KubeResponse> response, const std::string& path) {
  if (!response) return response.error();
  ApiReply reply{.status = response->status, .body = {}};
  if (auto document = parse_json(response->body, path, answer_limits)) {
    reply.body = std::move(document->root);
  } else if (reply.ok()) {
    return document.error();
  }
  return reply;
}

}  // namespace

Result<ApiReply> ClusterApi::ask_get(const std::string& path) {
  return reply_of(connection_->wait(connection_->client().request(request_for(path))), path);
}

Result<ApiReply> ClusterApi::ask_create(const std::string& path, const std::string& json) {
  return reply_of(
      connection_->wait(connection_->client().request({.method = KubeMethod::post, .path = path, .body = json, .deadline = patience})),
      path);
}

Result<std::string> ClusterApi::get_text(const std::string& path) {
  const KubeRequest request = request_for(path);
  auto response = connection_->wait(connection_->client().request(request));
  if (!response) return response.error();
  if (!response->ok()) return refusal_of(request, *response);
  return std::move(response->body);
}

Result<Node> ClusterApi::get(const std::string& path) {
  const auto text = get_text(path);
  if (!text) return text.error();
  auto document = parse_json(*text, path, answer_limits);
  if (!document) return document.error();
  return std::move(document->root);
}

Result<std::vector<Node>> ClusterApi::list(const std::string& path, std::string_view api_version, std::string_view kind) {
  std::vector<Node> objects;
  std::optional<Error> unreadable;
  ListDecoder decoder([&](std::string_view json) -> Result<void> {
    auto document = parse_json(json, path, answer_limits);
    if (!document) return document.error();
    field_of(document->root, "apiVersion") = make_text(api_version);
    field_of(document->root, "kind") = make_text(kind);
    objects.push_back(std::move(document->root));
    return {};
  });
  const KubeRequest request = request_for(path);
  const auto response = connection_->wait(connection_->client().stream(request, [&](std::string_view piece) {
    if (auto fed = decoder.feed(piece); !fed) unreadable = fed.error();
    return !unreadable;
  }));
  if (!response) return response.error();
  if (!response->ok()) return refusal_of(request, *response);
  if (unreadable) return *unreadable;
  if (const auto end = decoder.finish(); !end) return end.error();
  return objects;
}

}  // namespace postern::cli

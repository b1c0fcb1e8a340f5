#include "control/token_review.hpp"

#include <algorithm>
#include <variant>

#include "authz/kubernetes_names.hpp"
#include "base/document.hpp"
#include "base/json_writer.hpp"

namespace postern {
namespace {

constexpr DocumentLimits limits{.bytes = 4U << 20, .nodes = 100'000, .depth = 32, .documents = 1, .scalar_bytes = 1U << 20};
constexpr std::string_view account_prefix = "system:serviceaccount:";
constexpr auto deadline = std::chrono::seconds(5);

const Node* at(const Node& node, std::initializer_list<std::string_view> path) {
  const Node* found = &node;
  for (const std::string_view name : path) {
    found = found->find(name);
    if (found == nullptr) return nullptr;
  }
  return found;
}

std::string text_at(const Node& node, std::initializer_list<std::string_view> path) {
  const Node* found = at(node, path);
  return found != nullptr && found->is(Node::Kind::string) ? found->scalar : std::string();
}

// user.extra: lists of texts; exactly one is what the API server writes.
std::string extra(const Node& review, std::string_view name) {
  const Node* values = at(review, {"status", "user", "extra", name});
  const bool one = values != nullptr && values->is(Node::Kind::sequence) && values->items.size() == 1;
  return one && values->items.front().is(Node::Kind::string) ? values->items.front().scalar : std::string();
}

TokenRefusal refuse(std::string_view reason, std::string message) { return {reason, std::move(message), false}; }
TokenRefusal unavailable(std::string message) { return {"unavailable", "the API server could not be asked: " + std::move(message), true}; }

}  // namespace

TokenVerdict read_token_review(std::string_view review) {
  const auto document = parse_json(review, "TokenReview", limits);
  if (!document) return unavailable(document.error().text());
  const Node& root = document->root;
  const Node* authenticated = at(root, {"status", "authenticated"});
  if (authenticated == nullptr || !authenticated->is(Node::Kind::boolean) || !authenticated->boolean) {
    const std::string why = text_at(root, {"status", "error"});
    return refuse("token_refused", "the API server does not accept the token for the audience " + std::string(token_audience) +
                                       (why.empty() ? "" : ": " + why.substr(0, 512)));
  }
  // A server that knows no audiences would say yes to any token: it does not return ours then.
  const Node* audiences = at(root, {"status", "audiences"});
  const bool ours =
      audiences != nullptr && std::ranges::any_of(audiences->items, [](const Node& one) { return one.scalar == token_audience; });
  if (!ours) return refuse("token_refused", "the token is not for the audience " + std::string(token_audience));
  const std::string user = text_at(root, {"status", "user", "username"});
  const auto colon = user.find(':', account_prefix.size());
  if (!user.starts_with(account_prefix) || colon == std::string::npos)
    return refuse("not_pod_bound", "the token is not that of a ServiceAccount");
  TokenPod pod;
  pod.ns = user.substr(account_prefix.size(), colon - account_prefix.size());
  pod.service_account = user.substr(colon + 1);
  pod.name = extra(root, "authentication.kubernetes.io/pod-name");
  pod.uid = extra(root, "authentication.kubernetes.io/pod-uid");
  if (pod.name.empty() || pod.uid.empty()) return refuse("not_pod_bound", "the token is not bound to a pod; expected a projected one");
  return pod;
}

std::optional<TokenRefusal> check_pod(const TokenPod& token, std::string_view pod) {
  const auto document = parse_json(pod, "Pod", limits);
  if (!document) return unavailable(document.error().text());
  const Node& root = document->root;
  if (text_at(root, {"metadata", "uid"}) != token.uid)
    return refuse("pod_gone", "the pod that the token is bound to is gone; another has its name");
  if (text_at(root, {"spec", "serviceAccountName"}) != token.service_account)
    return refuse("pod_gone", "the pod does not belong to the token's ServiceAccount");
  const std::string phase = text_at(root, {"status", "phase"});
  if (phase == "Succeeded" || phase == "Failed") return refuse("pod_finished", "the pod has finished (" + phase + ")");
  return std::nullopt;
}

boost::asio::awaitable<TokenVerdict> review_token(KubeClient& client, std::string token) {
  JsonWriter json;
  json.begin_object().field("apiVersion", "authentication.k8s.io/v1").field("kind", "TokenReview");
  json.key("spec").begin_object().field("token", token).key("audiences").begin_array().value(token_audience).end_array().end_object();
  KubeRequest ask;
  ask.method = KubeMethod::post;
  ask.path = "/apis/authentication.k8s.io/v1/tokenreviews";
  ask.body = json.end_object().take();
  ask.deadline = deadline;
  KubeRequest asked;
  asked.method = ask.method;
  asked.path = ask.path;
  const Result<KubeResponse> review = co_await client.request(std::move(ask));
  if (!review) co_return unavailable(review.error().text());
  if (!review->ok()) co_return unavailable(refusal_of(asked, *review).text());
  TokenVerdict verdict = read_token_review(review->body);
  const auto* pod = std::get_if<TokenPod>(&verdict);
  if (pod == nullptr) co_return verdict;
  // Names that the API server itself gave; still nothing but names goes into a path.
  if (!dns_label_faults(pod->ns).empty() || !dns_subdomain_faults(pod->name).empty())
    co_return refuse("token_refused", "the token names no pod that there can be");

  KubeRequest get;
  get.path = "/api/v1/namespaces/" + pod->ns + "/pods/" + pod->name;
  get.deadline = deadline;
  asked.method = get.method;
  asked.path = get.path;
  const Result<KubeResponse> found = co_await client.request(std::move(get));
  if (!found) co_return unavailable(found.error().text());
  if (found->status == 404) co_return refuse("pod_gone", "the pod that the token is bound to does not exist");
  if (!found->ok()) co_return unavailable(refusal_of(asked, *found).text());
  if (auto refused = check_pod(*pod, found->body)) co_return *refused;
  co_return verdict;
}

Result<SpiffeId> spiffe_id_of(const TokenPod& pod, const TrustDomain& domain) {
  return SpiffeId::parse("spiffe://" + domain.text() + "/ns/" + pod.ns + "/sa/" + pod.service_account + "/pod/" + pod.name + "/" + pod.uid);
}

}  // namespace postern

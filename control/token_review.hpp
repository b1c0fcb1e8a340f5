// token_review: which pod asks, by its ServiceAccount token, as the API server says it (TokenReview, authentication.k8s.io/v1).
#pragma once

#include <boost/asio/awaitable.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "base/result.hpp"
#include "base/spiffe_id.hpp"
#include "control/kube_client.hpp"

namespace postern {

inline constexpr std::string_view token_audience = "postern-control";

// A pod that a token is bound to, and that exists.
struct TokenPod {
  std::string ns;
  std::string name;
  std::string uid;
  std::string service_account;
};

struct TokenRefusal {
  std::string_view reason;  // for the metric: token_refused, not_pod_bound, pod_gone, pod_finished, unavailable
  std::string message;
  bool retry = false;  // the API server could not be asked; the token may be right
};
using TokenVerdict = std::variant<TokenPod, TokenRefusal>;

// Asks the API server about the token, for the audience postern-control and no other, and then for the pod: it must exist with the UID that
// the token is bound to, belong to the token's ServiceAccount, and not have finished.
boost::asio::awaitable<TokenVerdict> review_token(KubeClient& client, std::string token);

// The parts without I/O. `review`: the TokenReview that came back; `pod`: the Pod.
TokenVerdict read_token_review(std::string_view review);
std::optional<TokenRefusal> check_pod(const TokenPod& token, std::string_view pod);

// spiffe://<trust domain>/ns/<ns>/sa/<account>/pod/<name>/<uid> (architecture section 3).
Result<SpiffeId> spiffe_id_of(const TokenPod& pod, const TrustDomain& domain);

}  // namespace postern

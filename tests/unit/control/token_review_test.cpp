#include "control/token_review.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace postern {
namespace {

using testing::HasSubstr;

const std::string good =
    R"({"status":{"authenticated":true,"audiences":["postern-control"],"user":{"username":"system:serviceaccount:shop:web","extra":{)"
    R"("authentication.kubernetes.io/pod-name":["web-0"],"authentication.kubernetes.io/pod-uid":["1234"]}}}})";
const std::string pod = R"({"metadata":{"uid":"1234"},"spec":{"serviceAccountName":"web"},"status":{"phase":"Running"}})";

std::string with(std::string text, std::string_view what, std::string_view instead) {
  const auto at = text.find(what);
  EXPECT_NE(at, std::string::npos) << what;
  return text.replace(at, what.size(), instead);
}

std::string reason_of(const std::string& review) {
  const TokenVerdict verdict = read_token_review(review);
  const auto* refused = std::get_if<TokenRefusal>(&verdict);
  return refused == nullptr ? "accepted" : std::string(refused->reason);
}

std::string reason_of_pod(const std::string& text) {
  const auto refused = check_pod({"shop", "web-0", "1234", "web"}, text);
  return refused ? std::string(refused->reason) : "accepted";
}

TEST(TokenReview, NamesThePodThatTheTokenIsBoundTo) {
  const TokenVerdict verdict = read_token_review(good);
  const auto* named = std::get_if<TokenPod>(&verdict);
  ASSERT_NE(named, nullptr);
  const auto id = spiffe_id_of(*named, *TrustDomain::parse("example.org"));
  ASSERT_TRUE(id);
  EXPECT_EQ(id->text(), "spiffe://example.org/ns/shop/sa/web/pod/web-0/1234");
}

TEST(TokenReview, RefusesATokenThatIsNotOurs) {
  EXPECT_EQ(reason_of(with(good, "true", "false")), "token_refused");
  EXPECT_EQ(reason_of(with(good, "\"postern-control\"", "\"https://kubernetes.default.svc\"")), "token_refused");
  EXPECT_EQ(reason_of(with(good, R"("audiences":["postern-control"],)", "")), "token_refused") << "a server that knows no audiences";
  EXPECT_EQ(reason_of("{}"), "token_refused");
  EXPECT_EQ(reason_of("nonsense"), "unavailable");
}

TEST(TokenReview, RefusesATokenThatNamesNoPod) {
  EXPECT_EQ(reason_of(with(good, "system:serviceaccount:shop:web", "admin")), "not_pod_bound");
  EXPECT_EQ(reason_of(with(good, "system:serviceaccount:shop:web", "system:serviceaccount:shop")), "not_pod_bound");
  EXPECT_EQ(reason_of(with(good, "[\"web-0\"]", "[]")), "not_pod_bound");
  EXPECT_EQ(reason_of(with(good, "[\"1234\"]", "[\"1234\",\"5678\"]")), "not_pod_bound");
}

TEST(TokenReview, ThePodMustBeThatOneAndNotHaveFinished) {
  EXPECT_EQ(reason_of_pod(pod), "accepted");
  EXPECT_EQ(reason_of_pod(with(pod, "Running", "Pending")), "accepted");
  EXPECT_EQ(reason_of_pod(with(pod, "1234", "5678")), "pod_gone");
  EXPECT_EQ(reason_of_pod(with(pod, "web", "other")), "pod_gone");
  EXPECT_EQ(reason_of_pod(with(pod, "Running", "Succeeded")), "pod_finished");
  EXPECT_EQ(reason_of_pod(with(pod, "Running", "Failed")), "pod_finished");
}

}  // namespace
}  // namespace postern

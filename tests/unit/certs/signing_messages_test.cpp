#include "certs/signing_messages.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace postern {
namespace {

using testing::HasSubstr;

std::string refusal_of(std::string_view text) {
  const auto read = decode_signing_request(text);
  return read ? "accepted" : read.error().text();
}

TEST(SigningMessages, AreReadAsWritten) {
  const auto request = decode_signing_request(encode(SigningRequest{"a.b.c", "-----BEGIN\n", 7}));
  ASSERT_TRUE(request) << request.error().text();
  EXPECT_EQ(request->token, "a.b.c");
  EXPECT_EQ(request->csr, "-----BEGIN\n");
  EXPECT_EQ(request->bundle_sequence, 7U);
  const auto answer = decode_signing_answer(encode(SigningAnswer{"chain", {8, "roots"}}));
  ASSERT_TRUE(answer) << answer.error().text();
  EXPECT_EQ(answer->chain, "chain");
  EXPECT_EQ(answer->bundle, (NumberedBundle{8, "roots"}));
  EXPECT_EQ(signing_error_of(encode_signing_error("too many")), "too many");
  EXPECT_EQ(signing_error_of("<html>"), "");
}

TEST(SigningMessages, RefuseWhatIsMissingUnknownOrTooLong) {
  EXPECT_THAT(refusal_of(R"({"csr":"c","bundleSequence":0})"), HasSubstr("token: expected a text"));
  EXPECT_THAT(refusal_of(R"({"token":"","csr":"c","bundleSequence":0})"), HasSubstr("token: expected a text"));
  EXPECT_THAT(refusal_of(R"({"token":"t","csr":"c","bundleSequence":-1})"), HasSubstr("bundleSequence: expected a number"));
  EXPECT_THAT(refusal_of(R"({"token":"t","csr":"c","bundleSequence":0,"spiffeId":"x"})"), HasSubstr("not known here"));
  EXPECT_THAT(refusal_of("[]"), HasSubstr("expected an object"));
  EXPECT_THAT(refusal_of(std::string(signing_request_bytes + 1, ' ')), HasSubstr("longer than"));
}

}  // namespace
}  // namespace postern

#include "proxy/identity_state.hpp"

#include <gtest/gtest.h>

namespace postern {
namespace {

TEST(IdentityState, IsReadAsWritten) {
  const IdentityState state{"key\n", "chain\n", {7, "roots\n"}};
  const auto read = decode_identity_state(encode_identity_state(state));
  ASSERT_TRUE(read) << read.error().text();
  EXPECT_EQ(read->key, state.key);
  EXPECT_EQ(read->chain, state.chain);
  EXPECT_EQ(read->bundle, state.bundle);
}

TEST(IdentityState, RefusesWhatDoesNotAddUp) {
  const std::string good = encode_identity_state({"key\n", "chain\n", {7, "roots\n"}});
  for (std::size_t size = 0; size < good.size(); ++size)
    EXPECT_FALSE(decode_identity_state(std::string_view(good).substr(0, size))) << size;
  EXPECT_FALSE(decode_identity_state(good + "x"));
  EXPECT_FALSE(decode_identity_state("postern-identity-state/2 7 0 0 0\n"));
  EXPECT_FALSE(decode_identity_state("postern-identity-state/1 7 0 0\n"));
  EXPECT_FALSE(decode_identity_state("postern-identity-state/1 7 18446744073709551615 1 0\n"));
}

}  // namespace
}  // namespace postern

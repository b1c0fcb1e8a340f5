#include "cli/control_check.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "base/descriptor.hpp"

namespace postern::cli {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(ControlCheck, ConnectsWhereSomebodyListens) {
  const Descriptor listener(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  socklen_t size = sizeof address;
  ASSERT_EQ(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  const std::string text = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  EXPECT_EQ(try_to_reach(text, 3000).reach, Reach::refused) << "bound, and not listening";
  ASSERT_EQ(::listen(listener.get(), 1), 0);
  EXPECT_EQ(try_to_reach(text, 3000).reach, Reach::reachable);
}

TEST(ControlCheck, ABadAddressIsNamed) { EXPECT_THAT(reach_text({try_to_reach("control", 100)}), HasSubstr("HOST:PORT")); }

TEST(ControlCheck, ThePolicyToAddIsNamedWhereNobodyAnswers) {
  const ReachReport dropped{.address = "control:15010", .reach = Reach::unanswered, .detail = "Connection timed out"};
  const ReachReport refused{.address = "10.0.0.1:15010", .reach = Reach::refused, .detail = "Connection refused"};
  const ReachReport reachable{.address = "10.0.0.2:15010", .reach = Reach::reachable, .detail = {}};
  EXPECT_THAT(reach_text({dropped}), testing::AllOf(HasSubstr("kind: NetworkPolicy"), HasSubstr("port: 15010"), HasSubstr("port: 53")));
  EXPECT_THAT(reach_text({refused}), Not(HasSubstr("kind: NetworkPolicy")));
  EXPECT_THAT(reach_text({dropped, reachable}), Not(HasSubstr("kind: NetworkPolicy")));
  EXPECT_TRUE(any_reachable({dropped, reachable}));
  EXPECT_FALSE(any_reachable({dropped, refused}));
}

}  // namespace
}  // namespace postern::cli

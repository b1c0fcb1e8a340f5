#include "proxy/redirect_command.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string_view>
#include <vector>

namespace postern {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

Result<RedirectCommand> parse(std::vector<std::string_view> arguments) { return parse_redirect_command(arguments); }

TEST(RedirectCommand, DefaultsAreTheSidecars) {
  const auto command = parse({"install"});
  ASSERT_TRUE(command) << command.error().text();
  EXPECT_EQ(command->action, RedirectCommand::Action::install);
  EXPECT_EQ(command->rules.uid, 1337U);
  EXPECT_EQ(command->rules.inbound, Port{15006});
  EXPECT_EQ(command->rules.outbound, Port{15001});
  EXPECT_EQ(command->rules.health, Port{15020});
  EXPECT_EQ(command->ipv6, RedirectCommand::Ipv6::automatic);
  EXPECT_FALSE(command->dry_run);
}

TEST(RedirectCommand, ReadsEveryOptionInBothSpellings) {
  const auto command = parse({"check",
                              "--uid",
                              "2000",
                              "--gid=2001",
                              "--inbound-port=1",
                              "--outbound-port",
                              "65535",
                              "--health-port=0",
                              "--exclude-inbound-ports",
                              "9100,22,22",
                              "--exclude-outbound-ports=25",
                              "--exclude-cidrs",
                              "10.1.2.3/8,fd00::1,1.2.3.4",
                              "--exclude-uids",
                              "0,5",
                              "--ipv6",
                              "require",
                              "--iptables",
                              "/sbin/iptables-nft",
                              "--dry-run"});
  ASSERT_TRUE(command) << command.error().text();
  EXPECT_EQ(command->action, RedirectCommand::Action::check);
  EXPECT_EQ(command->rules.uid, 2000U);
  EXPECT_EQ(command->rules.gid, 2001U);
  EXPECT_EQ(command->rules.inbound, Port{1});
  EXPECT_EQ(command->rules.outbound, Port{65535});
  EXPECT_FALSE(command->rules.health);
  EXPECT_THAT(command->rules.exclude_inbound_ports, ElementsAre(Port{22}, Port{9100}));
  EXPECT_THAT(command->rules.exclude_outbound_ports, ElementsAre(Port{25}));
  EXPECT_THAT(command->rules.exclude_uids, ElementsAre(0U, 5U));
  std::vector<std::string> cidrs;
  for (const Cidr& cidr : command->rules.exclude_cidrs) cidrs.push_back(cidr.text());
  EXPECT_THAT(cidrs, testing::UnorderedElementsAre("10.0.0.0/8", "fd00::1/128", "1.2.3.4/32"));
  EXPECT_EQ(command->ipv6, RedirectCommand::Ipv6::require);
  EXPECT_EQ(command->iptables, "/sbin/iptables-nft");
  EXPECT_TRUE(command->dry_run);
}

TEST(RedirectCommand, HelpWinsOverEverything) {
  EXPECT_EQ(parse({})->action, RedirectCommand::Action::help);
  EXPECT_EQ(parse({"--help"})->action, RedirectCommand::Action::help);
  EXPECT_EQ(parse({"remove", "--help"})->action, RedirectCommand::Action::help);
}

struct Refusal {
  std::vector<std::string_view> arguments;
  std::string_view flag;
  std::string_view expected;
};

class RedirectCommandRefuses : public testing::TestWithParam<Refusal> {};

TEST_P(RedirectCommandRefuses, NamingFlagAndRemedy) {
  std::vector<std::string_view> arguments = {"install"};
  arguments.insert(arguments.end(), GetParam().arguments.begin(), GetParam().arguments.end());
  const auto command = parse(arguments);
  ASSERT_FALSE(command);
  EXPECT_THAT(command.error().text(), AllOf(HasSubstr(std::string(GetParam().flag)), HasSubstr(std::string(GetParam().expected))));
}

INSTANTIATE_TEST_SUITE_P(BadValues, RedirectCommandRefuses,
                         testing::Values(Refusal{{"--uid", "root"}, "--uid 'root'", "numeric id"},
                                         Refusal{{"--uid", "4294967295"}, "--uid", "numeric id"},
                                         Refusal{{"--uid", "-1"}, "--uid", "numeric id"},
                                         Refusal{{"--uid=0"}, "--uid '0'", "user of its own"},
                                         Refusal{{"--inbound-port", "0"}, "--inbound-port '0'", "1 to 65535"},
                                         Refusal{{"--outbound-port", "65536"}, "--outbound-port", "65535"},
                                         Refusal{{"--outbound-port", "80x"}, "'80x'", "port number"},
                                         Refusal{{"--exclude-inbound-ports", "80,,81"}, "''", "port number"},
                                         Refusal{{"--exclude-inbound-ports", "80,"}, "--exclude-inbound-ports", "after the last comma"},
                                         Refusal{{"--exclude-cidrs", "10.0.0.0/33"}, "10.0.0.0/33", "CIDR block"},
                                         Refusal{{"--exclude-cidrs", "0.0.0.0/0"}, "0.0.0.0/0", "redirect remove"},
                                         Refusal{{"--exclude-cidrs", "host.example"}, "host.example", "CIDR block"},
                                         Refusal{{"--ipv6", "no"}, "--ipv6 'no'", "auto, off or require"},
                                         Refusal{{"--inbound-port", "15001"}, "--inbound-port and --outbound-port", "two ports"},
                                         Refusal{{"--health-port", "15006"}, "--health-port '15006'", "another port"},
                                         Refusal{{"--uid"}, "--uid", "needs a value"}, Refusal{{"--color", "red"}, "--color", "--help"},
                                         Refusal{{"now"}, "'now'", "options"}));

TEST(RedirectCommand, AnUnknownActionIsRefused) {
  EXPECT_THAT(parse({"instal"}).error().text(), HasSubstr("expected install, remove or check"));
}

TEST(RedirectCommand, ListsAreBounded) {
  std::string ports = "1";
  for (int i = 0; i < 2'000; ++i) ports += ",1";
  EXPECT_THAT(parse({"install", "--exclude-inbound-ports", ports}).error().text(), HasSubstr("more than 1000"));
}

}  // namespace
}  // namespace postern

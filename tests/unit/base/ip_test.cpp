#include "base/ip.hpp"

#include <gtest/gtest.h>

#include <unordered_set>

namespace postern {
namespace {

std::string parsed(std::string_view text) {
  const auto address = IpAddress::parse(text);
  return address ? address->text() : "error";
}

std::string block(std::string_view text) {
  const auto cidr = Cidr::parse(text);
  return cidr ? cidr->text() : "error";
}

IpAddress ip(std::string_view text) { return IpAddress::parse(text).value(); }
Cidr cidr(std::string_view text) { return Cidr::parse(text).value(); }

TEST(IpAddress, ParsesTheStrictForm) {
  EXPECT_EQ(parsed("10.0.0.1"), "10.0.0.1");
  EXPECT_EQ(parsed("255.255.255.255"), "255.255.255.255");
  EXPECT_EQ(parsed("fd00::1"), "fd00::1");
  EXPECT_EQ(parsed("FD00:0:0:0:0:0:0:1"), "fd00::1");
  EXPECT_EQ(parsed("::"), "::");
  EXPECT_EQ(parsed("1::"), "1::");
  EXPECT_EQ(parsed("1:2:3:4:5:6:7:8"), "1:2:3:4:5:6:7:8");
  EXPECT_EQ(parsed("64:ff9b::10.0.0.1"), "64:ff9b::a00:1");
  EXPECT_EQ(parsed("1:2:3:4:5:6:10.0.0.1"), "1:2:3:4:5:6:a00:1");
  EXPECT_EQ(parsed("1:2:3:4:5:6:7::"), "1:2:3:4:5:6:7:0");
}

TEST(IpAddress, RefusesEverythingElse) {
  for (const char* text : {"",
                           " ",
                           "10.0.0",
                           "10.0.0.1.2",
                           "10.0.0.256",
                           "010.0.0.1",
                           "10.0.0.01",
                           "10.0.0.1 ",
                           " 10.0.0.1",
                           "10.0.0.1/8",
                           "1.2.3.-4",
                           "0x1.2.3.4",
                           "10.0.0.",
                           ".10.0.0",
                           "a",
                           ":",
                           ":::",
                           "1::2::3",
                           "1:2:3:4:5:6:7",
                           "1:2:3:4:5:6:7:8:9",
                           "1:2:3:4:5:6:7:8::",
                           "::1:2:3:4:5:6:7:8",
                           "fd00::1%eth0",
                           "[fd00::1]",
                           "12345::",
                           "00001::",
                           "g::",
                           "1:",
                           ":1",
                           "::1:",
                           "::1.2.3",
                           "::1.2.3.4:5",
                           "1.2.3.4::",
                           "::01.2.3.4",
                           "1:2:3:4:5:6:7:1.2.3.4",
                           "1:1.2.3.4"}) {
    EXPECT_EQ(parsed(text), "error") << text;
  }
  EXPECT_EQ(parsed(std::string_view("10.0.0.1\0", 9)), "error");
}

TEST(IpAddress, TakesAMappedAddressForTheIpv4Address) {
  EXPECT_EQ(ip("::ffff:10.0.0.1"), ip("10.0.0.1"));
  EXPECT_EQ(ip("::ffff:a00:1"), ip("10.0.0.1"));
  EXPECT_TRUE(ip("::ffff:10.0.0.1").is_v4());
  EXPECT_FALSE(ip("::10.0.0.1").is_v4());
  EXPECT_EQ(IpAddressHash{}(ip("::ffff:10.0.0.1")), IpAddressHash{}(ip("10.0.0.1")));
}

TEST(IpAddress, KnowsLoopback) {
  EXPECT_TRUE(ip("127.0.0.1").is_loopback());
  EXPECT_TRUE(ip("127.200.0.1").is_loopback());
  EXPECT_TRUE(ip("::1").is_loopback());
  EXPECT_FALSE(ip("128.0.0.1").is_loopback());
  EXPECT_FALSE(ip("::2").is_loopback());
}

TEST(IpAddress, MasksAtEveryPrefix) {
  EXPECT_EQ(ip("255.255.255.255").masked(0).text(), "0.0.0.0");
  EXPECT_EQ(ip("255.255.255.255").masked(9).text(), "255.128.0.0");
  EXPECT_EQ(ip("255.255.255.255").masked(31).text(), "255.255.255.254");
  EXPECT_EQ(ip("255.255.255.255").masked(32).text(), "255.255.255.255");
  EXPECT_EQ(ip("ffff:ffff::ffff").masked(127).text(), "ffff:ffff::fffe");
  EXPECT_EQ(ip("ffff:ffff::ffff").masked(17).text(), "ffff:8000::");
}

// What a real API server said: docs of NetworkPolicy validation, networkpolicy-validation cases "ipBlock ...".
TEST(Cidr, ParsesWhatTheKubernetesApiAccepts) {
  EXPECT_EQ(block("10.0.0.0/8"), "10.0.0.0/8");
  EXPECT_EQ(block("10.0.0.1/8"), "10.0.0.0/8");
  EXPECT_EQ(block("010.0.0.0/8"), "10.0.0.0/8") << "leading zeros are decimal, never octal";
  EXPECT_EQ(block("0000010.0.0.0/8"), "10.0.0.0/8");
  EXPECT_EQ(block("10.0.0.0/08"), "10.0.0.0/8");
  EXPECT_EQ(block("10.0.0.0/00000032"), "10.0.0.0/32");
  EXPECT_EQ(block("0.0.0.0/0"), "0.0.0.0/0");
  EXPECT_EQ(block("::/0"), "::/0");
  EXPECT_EQ(block("fd00::1/8"), "fd00::/8");
  EXPECT_EQ(block("000fd00::/8"), "fd00::/8");
  EXPECT_EQ(block("::ffff:10.0.0.0/104"), "10.0.0.0/8");
  EXPECT_EQ(block("::ffff:010.0.0.0/104"), "10.0.0.0/8");
  EXPECT_EQ(block("::ffff:10.1.2.3/128"), "10.1.2.3/32");
  EXPECT_EQ(block("::ffff:10.1.2.3/96"), "0.0.0.0/0");
}

TEST(Cidr, RefusesEverythingElse) {
  for (const char* text : {"", "/", "/8", "10.0.0.0/", "10.0.0.1", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0.0/8 ",
                           " 10.0.0.0/8", "10.0.0.0/8/8", "10.0.0.0/255.0.0.0", "10.0.0/8", "banana", "fd00::/129", "fd00::%1/8",
                           "fd00::/8x", "10.0.0.256/8", "10.0.0.0/99999999999999999999"}) {
    EXPECT_EQ(block(text), "error") << text;
  }
}

TEST(Cidr, AMappedBlockWiderThanIpv4HoldsNoIpv4Address) {
  const Cidr wide = cidr("::ffff:10.0.0.0/90");
  EXPECT_FALSE(wide.contains(ip("10.0.0.1")));
  EXPECT_TRUE(wide.contains(ip("::ffc0:a00:1")));
  EXPECT_FALSE(cidr("::ffff:10.0.0.0/0").contains(ip("10.0.0.1")));
}

TEST(Cidr, ContainsAddresses) {
  EXPECT_TRUE(cidr("10.0.0.0/9").contains(ip("10.127.255.255")));
  EXPECT_FALSE(cidr("10.0.0.0/9").contains(ip("10.128.0.0")));
  EXPECT_TRUE(cidr("0.0.0.0/0").contains(ip("255.0.0.1")));
  EXPECT_FALSE(cidr("0.0.0.0/0").contains(ip("fd00::1")));
  EXPECT_FALSE(cidr("::/0").contains(ip("10.0.0.1")));
  EXPECT_TRUE(cidr("::/0").contains(ip("fd00::1")));
  EXPECT_TRUE(cidr("10.0.0.1/32").contains(ip("10.0.0.1")));
  EXPECT_FALSE(cidr("10.0.0.1/32").contains(ip("10.0.0.0")));
  EXPECT_TRUE(cidr("fd00::1/128").contains(ip("fd00::1")));
}

TEST(Cidr, ContainsBlocks) {
  EXPECT_TRUE(cidr("10.0.0.0/8").contains(cidr("10.0.0.0/8")));
  EXPECT_TRUE(cidr("10.0.0.0/8").contains(cidr("10.1.0.0/16")));
  EXPECT_FALSE(cidr("10.1.0.0/16").contains(cidr("10.0.0.0/8")));
  EXPECT_FALSE(cidr("10.0.0.0/8").contains(cidr("11.0.0.0/16")));
  EXPECT_FALSE(cidr("::/0").contains(cidr("10.0.0.0/8")));
}

TEST(SocketAddress, PrintsBothFamilies) {
  EXPECT_EQ((SocketAddress{ip("10.0.0.1"), Port{80}}.text()), "10.0.0.1:80");
  EXPECT_EQ((SocketAddress{ip("fd00::1"), Port{80}}.text()), "[fd00::1]:80");
}

TEST(SocketAddress, HashesSpreadNeighbours) {
  std::unordered_set<std::size_t> low_bits;
  for (std::uint8_t i = 0; i < 64; ++i) {
    low_bits.insert(SocketAddressHash{}(SocketAddress{IpAddress::v4({10, 0, 0, i}), Port{80}}) % 1024);
  }
  EXPECT_GT(low_bits.size(), 50U);
  EXPECT_NE(SocketAddressHash{}(SocketAddress{ip("10.0.0.1"), Port{80}}), SocketAddressHash{}(SocketAddress{ip("10.0.0.1"), Port{81}}));
  EXPECT_NE(IpAddressHash{}(ip("0.0.0.0")), IpAddressHash{}(ip("::")));
}

}  // namespace
}  // namespace postern

#include "proxy/gateways.hpp"

#include <gmock/gmock.h>

namespace postern {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

IpAddress at(std::string_view text) { return *IpAddress::parse(text); }

constexpr std::string_view v4_head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";

std::string v4(std::string_view lines) { return std::string(v4_head) + std::string(lines); }

TEST(Gateways, AreThoseOfDefaultRoutes) {
  // As a bridge of CNI makes them: 10.244.0.1, and the pods' own network.
  EXPECT_THAT(
      gateways_in(
          v4("eth0\t00000000\t0100F40A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
             "eth0\t0000F40A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"),
          "00000000000000000000000000000000 00 00000000000000000000000000000000 00 fd440000000000000000000000000001 00000400 00000001 "
          "00000000 00000003     eth0\n"
          "fd440000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 "
          "00000000 00000001     eth0\n"),
      ElementsAre(at("10.244.0.1"), at("fd44::1")));
}

TEST(Gateways, EachIsNamedOnce) {
  EXPECT_THAT(gateways_in(v4("eth0 00000000 0100F40A 0003 0 0 0 00000000 0 0 0\neth1 00000000 0100F40A 0003 0 0 100 00000000 0 0 0\n"), ""),
              ElementsAre(at("10.244.0.1")));
}

TEST(Gateways, OtherRoutesNameNone) {
  EXPECT_THAT(
      gateways_in(
          v4("eth0 0000F40A 0100F40A 0003 0 0 0 0000FFFF 0 0 0\n"    // to a network behind a gateway
             "eth0 00000000 0100F40A 0003 0 0 0 00000080 0 0 0\n"    // 0.0.0.0/1
             "eth0 00000000 00000000 0001 0 0 0 00000000 0 0 0\n"    // on the link
             "eth0 00000000 0100F40A 0002 0 0 0 00000000 0 0 0\n"),  // not up
          "00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 "
          "00000000 00200200       lo\n"),  // unreachable
      IsEmpty());
}

TEST(Gateways, WhatIsNotLikeThatIsPassedOver) {
  EXPECT_THAT(gateways_in("", ""), IsEmpty());
  EXPECT_THAT(gateways_in(v4("eth0 00000000 0100F4 0003 0 0 0 00000000\neth0 00000000 XX00F40A 0003 0 0 0 00000000\neth0 00000000\n\n"),
                          "00000000000000000000000000000000 00 0 00 fd44 0 0 0 00000003 eth0\n"),
              IsEmpty());
}

}  // namespace
}  // namespace postern

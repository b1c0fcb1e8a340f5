#include "proxy/source_ports.hpp"

#include <gtest/gtest.h>

#include <set>

namespace postern {
namespace {

using std::chrono::seconds;
const std::chrono::steady_clock::time_point start{std::chrono::hours(30)};

TEST(SourcePorts, AreThoseThatConnectDoesNotPrefer) {
  const SourcePorts even("32768\t32775\n", "\n");
  EXPECT_EQ(even.candidates(), (std::vector<Port>{Port{32769}, Port{32771}, Port{32773}, Port{32775}}));
  const SourcePorts odd("1025\t1030\n", "");
  EXPECT_EQ(odd.candidates(), (std::vector<Port>{Port{1026}, Port{1028}, Port{1030}}));
}

TEST(SourcePorts, LeaveOutWhatIsReserved) {
  const SourcePorts ports("40000\t40011\n", "8080,40003,40006-40009\n");
  EXPECT_EQ(ports.candidates(), (std::vector<Port>{Port{40001}, Port{40005}, Port{40011}}));
}

TEST(SourcePorts, AreNoneWhereTheRangeCannotBeRead) {
  for (const char* range : {"", "\n", "40000", "x 1", "70000 80000", "50000 40000"}) {
    SourcePorts ports(range, "");
    EXPECT_TRUE(ports.candidates().empty()) << range;
    EXPECT_FALSE(SourcePortTurn(ports, 7).next(start)) << range;
  }
}

TEST(SourcePorts, OfTheLastPortAreFound) {
  const SourcePorts ports("65530 65535", "65535");
  EXPECT_EQ(ports.candidates(), (std::vector<Port>{Port{65531}, Port{65533}}));
}

TEST(SourcePorts, RememberForLongerThanConntrackDoes) {
  SourcePorts ports("40000 40010", "");
  const Port port{40001};
  EXPECT_FALSE(ports.ended_lately(port, start));
  for (int offset = 0; offset < 1100; ++offset) {  // over the end of the counting
    const auto then = start + seconds(offset);
    ports.ended(port, then);
    EXPECT_TRUE(ports.ended_lately(port, then));
    EXPECT_TRUE(ports.ended_lately(port, then + seconds(12)));
    EXPECT_FALSE(ports.ended_lately(port, then + seconds(24)));
    EXPECT_FALSE(ports.ended_lately(Port{40003}, then));
  }
}

TEST(SourcePorts, ThatAnApplicationHadAreNotTaken) {
  SourcePorts ports("40000 40009", "");
  for (const Port port : {Port{40001}, Port{40003}, Port{40007}, Port{40009}}) ports.ended(port, start);
  SourcePortTurn turn(ports, 1);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(turn.next(start + seconds(1)), Port{40005});
  ports.ended(Port{40005}, start);
  EXPECT_FALSE(turn.next(start + seconds(1)));
}

TEST(SourcePorts, AllHaveTheirTurn) {
  SourcePorts ports("40000 40099", "");
  SourcePortTurn turn(ports, 12345);
  std::set<Port> seen;
  for (int i = 0; i < 5000; ++i) seen.insert(*turn.next(start));
  EXPECT_EQ(seen.size(), 50U);
}

}  // namespace
}  // namespace postern

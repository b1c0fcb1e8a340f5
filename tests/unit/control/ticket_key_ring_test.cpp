#include "control/ticket_key_ring.hpp"

#include <gtest/gtest.h>

namespace postern {
namespace {

using std::chrono::hours;
using std::chrono::seconds;

const SystemTime now{seconds(1'900'000'000)};

DatedTicketKey key_of(SystemTime made) { return {made, TicketKey::make().value()}; }

TEST(TicketKeyRing, IsReadAsItWasWritten) {
  const TicketKeyRing ring{key_of(now), key_of(now - hours(12))};
  const auto read = decode_ticket_keys(encode_ticket_keys(ring));
  ASSERT_TRUE(read);
  EXPECT_EQ(*read, ring);
}

TEST(TicketKeyRing, IsInOrderHoweverItStands) {
  const TicketKeyRing ring{key_of(now - hours(12)), key_of(now)};
  EXPECT_EQ(decode_ticket_keys(encode_ticket_keys(ring)).value().front(), ring[1]);
}

TEST(TicketKeyRing, AnythingElseIsRefusedWhole) {
  const std::string good = encode_ticket_keys({key_of(now)});
  ASSERT_TRUE(decode_ticket_keys(good));
  std::string many;
  for (std::size_t i = 0; i <= most_ticket_keys; ++i) many += good;
  for (const std::string& bad : {std::string(), std::string("\n"), good + "\n", good.substr(0, good.size() - 2), good + "x", "-" + good,
                                 good.substr(0, 20) + "g" + good.substr(21), many, std::string("99999999999 ") + good.substr(11)}) {
    EXPECT_FALSE(decode_ticket_keys(bad)) << bad;
  }
}

TEST(TicketKeyRing, GetsAKeyWhenItHasNoneOrAnOldOne) {
  const TicketKeyRing made = rotated({}, now, hours(12)).value();
  ASSERT_EQ(made.size(), 1U);
  EXPECT_EQ(made.front().made, now);
  EXPECT_EQ(rotated(made, now + hours(11), hours(12)).value(), made);
  const TicketKeyRing later = rotated(made, now + hours(12), hours(12)).value();
  ASSERT_EQ(later.size(), 2U);
  EXPECT_EQ(later[0].made, now + hours(12));
  EXPECT_EQ(later[1], made[0]);
}

TEST(TicketKeyRing, ForgetsWhatIsThreeRotationsOldAndWhatAWrongClockMade) {
  const DatedTicketKey fresh = key_of(now - hours(1));
  const DatedTicketKey previous = key_of(now - hours(30));
  const TicketKeyRing ring{key_of(now + hours(24 * 365)), fresh, previous, key_of(now - hours(37))};
  EXPECT_EQ(rotated(ring, now, hours(12)).value(), (TicketKeyRing{fresh, previous}));
}

TEST(TicketKeyRing, ANewKeySealsOnceEverybodyCanKnowIt) {
  const TicketKeyRing ring{key_of(now), key_of(now - hours(12))};
  EXPECT_EQ(keys_in_use(ring, now + seconds(119), seconds(120)).seals, 1U);
  EXPECT_EQ(keys_in_use(ring, now + seconds(120), seconds(120)).seals, 0U);
  EXPECT_EQ(keys_in_use({ring[0]}, now, seconds(120)).seals, 0U) << "there is no other";
}

}  // namespace
}  // namespace postern

#include "base/certificate_serial.hpp"

#include <gtest/gtest.h>

namespace postern {
namespace {

std::string canonical(std::string_view text) {
  const auto serial = canonical_serial(text);
  return serial ? *serial : "refused";
}

TEST(CertificateSerial, IsWrittenInOneWay) {
  EXPECT_EQ(canonical("4B2F"), "4B2F");
  EXPECT_EQ(canonical("4b:2f"), "4B2F");
  EXPECT_EQ(canonical("004B2F"), "4B2F");
  EXPECT_EQ(canonical("B2F"), "0B2F");
  EXPECT_EQ(canonical("0"), "00");
  EXPECT_EQ(canonical("00:00"), "00");
}

TEST(CertificateSerial, AnythingElseIsRefused) {
  for (const std::string& text : {std::string(), std::string(":"), std::string("0x4B"), std::string("4B 2F"), std::string("4B2G"),
                                  std::string("-4B"), std::string(81, 'A'), std::string(1000, ':')}) {
    EXPECT_EQ(canonical(text), "refused") << text;
  }
  EXPECT_EQ(canonical(std::string(80, 'A')).size(), 80U);
}

}  // namespace
}  // namespace postern

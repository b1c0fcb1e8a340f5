#include "control/federation.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>
#include <cstdlib>
#include <filesystem>

#include "authz/stream_messages.hpp"
#include "tests/kit/test_authority.hpp"

namespace postern {
namespace {

namespace fs = std::filesystem;
using std::chrono::seconds;
using testing::HasSubstr;

TEST(RefreshInterval, IsWhatTheBundleAsksForWithinBounds) {
  EXPECT_EQ(refresh_interval(std::nullopt), seconds{300});
  EXPECT_EQ(refresh_interval(seconds{60}), seconds{60});
  EXPECT_EQ(refresh_interval(seconds{0}), seconds{5});
  EXPECT_EQ(refresh_interval(seconds{1'000'000}), seconds{3'600});
}

// What of each trust domain is sent: its roots, nothing, or "not known yet".
TEST(Federation, TellsWithdrawnFromNotKnownYet) {
  std::string pattern = (fs::temp_directory_path() / "postern-federation-XXXXXX").string();
  ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
  const fs::path folder = pattern;
  const test::TestAuthority root = test::TestAuthority::root("root");
  test::write_file(folder / "good", root.certificate_pem());
  test::write_file(folder / "bad", "nonsense");
  test::write_file(folder / "empty", R"({"keys":[]})");
  std::vector<FederatedBundle> bundles;
  for (const std::string name : {"good", "bad", "empty", "missing"}) {
    bundles.emplace_back();
    bundles.back().domain = TrustDomain::parse(name + ".example").value();
    bundles.back().file = folder / name;
  }
  boost::asio::io_context io{1};
  Log log(LogLevel::error);
  Federation::Resources resources;
  const auto federation = Federation::make(io, bundles, log, [&](Federation::Resources now) { resources = std::move(now); });
  ASSERT_TRUE(federation) << federation.error().text();
  (*federation)->start();
  ASSERT_EQ(resources.size(), 2U);
  EXPECT_EQ(resources.at("federated-bundle/bad.example"), nullptr);
  ASSERT_NE(resources.at("federated-bundle/good.example"), nullptr);
  SnapshotParts parts;
  ASSERT_TRUE(decode_into(parts, *resources.at("federated-bundle/good.example")));
  EXPECT_EQ(parts.federated_bundles.at("good.example").roots, root.certificate_pem());
  const auto facts = (*federation)->facts();
  ASSERT_EQ(facts.size(), 4U);
  EXPECT_EQ(facts[0].authorities, 1U);
  EXPECT_EQ(facts[1].refused, 1U);
  fs::remove_all(folder);
}

}  // namespace
}  // namespace postern

#include "certs/federated_files.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <sys/stat.h>

#include <filesystem>

#include "certs/svid.hpp"
#include "tests/kit/test_authority.hpp"

namespace postern {
namespace {

namespace fs = std::filesystem;
using test::TestAuthority;
using test::write_file;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

const TrustDomain partner = TrustDomain::parse("partner.example").value();

std::string bundle_json(const TestAuthority& authority, const std::string& sequence = "", const std::string& hint = "") {
  const auto certificates = parse_certificates_pem(authority.certificate_pem(), 1);
  unsigned char* der = nullptr;
  const int size = i2d_X509(certificates->front().get(), &der);
  std::string text(static_cast<std::size_t>(size) * 4 / 3 + 4, '\0');
  text.resize(static_cast<std::size_t>(EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()), der, size)));
  OPENSSL_free(der);
  return "{" + (sequence.empty() ? "" : "\"spiffe_sequence\":" + sequence + ",") +
         (hint.empty() ? "" : "\"spiffe_refresh_hint\":" + hint + ",") + R"("keys":[{"use":"x509-svid","kty":"EC","x5c":[")" + text +
         "\"]}]}";
}

class AcceptBundle : public testing::Test {
 protected:
  std::string refusal(std::string_view text) {
    const auto accepted = accept_bundle(held, text, partner);
    return accepted ? "accepted" : accepted.error().text();
  }
  TestAuthority root = TestAuthority::root("root");
  TestAuthority next = TestAuthority::root("next");
  HeldBundle held;
};

TEST_F(AcceptBundle, TakesItsSequenceAndHint) {
  EXPECT_TRUE(accept_bundle(held, bundle_json(root, "7", "60"), partner).value());
  EXPECT_EQ(held.bundle->domain(), partner);
  EXPECT_EQ(held.sequence, 7U);
  EXPECT_EQ(held.refresh_hint, std::chrono::seconds{60});
  EXPECT_FALSE(accept_bundle(held, bundle_json(root, "8"), partner).value()) << "the same authorities";
  EXPECT_EQ(held.sequence, 8U);
  EXPECT_FALSE(held.refresh_hint);
}

TEST_F(AcceptBundle, KeepsWhatItHasWhereAnOlderOneComes) {
  ASSERT_TRUE(accept_bundle(held, bundle_json(root, "7"), partner));
  EXPECT_THAT(refusal(bundle_json(next, "6")), HasSubstr("older than the one in force: spiffe_sequence 6, after 7"));
  EXPECT_EQ(held.bundle->hash(), TrustBundle::parse(root.certificate_pem(), partner)->hash());
  EXPECT_TRUE(accept_bundle(held, bundle_json(next, "8"), partner).value());
  EXPECT_TRUE(accept_bundle(held, bundle_json(root), partner).value()) << "without a sequence it is the newest (section 4.2)";
}

TEST_F(AcceptBundle, KeepsWhatItHasWhereABadOneComes) {
  ASSERT_TRUE(accept_bundle(held, root.certificate_pem(), partner));
  for (const std::string& bad :
       {std::string(), std::string("{"), std::string("{\"keys\":1}"), std::string("nonsense"), bundle_json(next, "-1"),
        bundle_json(next, "\"7\""), bundle_json(next, "1.5"), bundle_json(next, "7", "-3"), bundle_json(next, "99999999999999999999")}) {
    EXPECT_THAT(refusal(bad), HasSubstr("the bundle of partner.example cannot be read: ")) << bad;
  }
  EXPECT_NE(held.bundle, nullptr);
  EXPECT_THAT(refusal(bundle_json(next, "\"7\"")), HasSubstr("spiffe_sequence: expected a whole number"));
}

TEST_F(AcceptBundle, WithoutKeysWithdrawsEverything) {
  ASSERT_TRUE(accept_bundle(held, bundle_json(root, "7"), partner));
  EXPECT_TRUE(accept_bundle(held, R"({"spiffe_sequence":8,"keys":[]})", partner).value());
  EXPECT_EQ(held.bundle, nullptr);
  EXPECT_EQ(held.sequence, 8U);
  EXPECT_THAT(refusal(bundle_json(root, "7")), HasSubstr("older"));
}

class FederatedFilesTest : public testing::Test {
 protected:
  FederatedFilesTest() {
    std::string pattern = (fs::temp_directory_path() / "postern-federated-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp");
    folder = pattern;
  }
  ~FederatedFilesTest() override { fs::remove_all(folder); }

  FederatedFiles make() const {
    FederatedBundle from;
    from.domain = partner;
    from.file = folder / "partner.json";
    FederatedBundle fetched;
    fetched.domain = TrustDomain::parse("other.example").value();
    fetched.endpoint = "https://other.example";
    return FederatedFiles::make({from, fetched}).value();
  }
  void write(const std::string& text) const {
    write_file(folder / "new", text);
    fs::rename(folder / "new", folder / "partner.json");
  }

  fs::path folder;
  TestAuthority root = TestAuthority::root("root");
  TestAuthority next = TestAuthority::root("next");
};

TEST_F(FederatedFilesTest, AreReadAgainWhenTheyChange) {
  write(bundle_json(root, "1"));
  auto files = make();
  EXPECT_TRUE(files.poll());
  ASSERT_EQ(files.files().size(), 1U) << "those that come from files";
  const FederatedFiles::File& file = files.files()[0];
  const ContentHash first = file.held.bundle->hash();
  EXPECT_FALSE(files.poll());
  write(bundle_json(next, "2"));
  EXPECT_TRUE(files.poll());
  EXPECT_NE(file.held.bundle->hash(), first);
  EXPECT_THAT(files.take_warnings(), IsEmpty());
}

TEST_F(FederatedFilesTest, ThatAreGoneWithdrawTheirDomainAndThatAreBadDoNot) {
  write(bundle_json(root, "5"));
  auto files = make();
  ASSERT_TRUE(files.poll());
  const FederatedFiles::File& file = files.files()[0];
  write("{");
  EXPECT_FALSE(files.poll());
  EXPECT_NE(file.held.bundle, nullptr);
  EXPECT_THAT(files.take_warnings(), ElementsAre(HasSubstr("partner.json: the bundle of partner.example cannot be read")));
  EXPECT_FALSE(files.poll());
  EXPECT_THAT(files.take_warnings(), IsEmpty()) << "said once";
  write(bundle_json(next, "4"));
  EXPECT_FALSE(files.poll());
  EXPECT_THAT(files.take_warnings(), ElementsAre(HasSubstr("older")));
  fs::remove(folder / "partner.json");
  EXPECT_TRUE(files.poll());
  EXPECT_EQ(file.held.bundle, nullptr);
  EXPECT_TRUE(file.withdrawn);
  EXPECT_THAT(files.take_warnings(), ElementsAre(HasSubstr("nobody of partner.example is trusted")));
  write(bundle_json(next, "4"));
  EXPECT_TRUE(files.poll()) << "after a withdrawal it begins anew";
  EXPECT_FALSE(file.withdrawn);
  EXPECT_EQ(file.refused, 3U);
}

TEST_F(FederatedFilesTest, ThatAreNoFilesAreNotRead) {
  ASSERT_EQ(::mkfifo((folder / "partner.json").c_str(), 0600), 0);
  auto files = make();
  EXPECT_FALSE(files.poll());
  EXPECT_THAT(files.take_warnings(), ElementsAre(HasSubstr("is no regular file")));
  EXPECT_FALSE(files.files()[0].withdrawn);
}

TEST_F(FederatedFilesTest, NeedTheirFolder) {
  FederatedBundle from;
  from.domain = partner;
  from.file = folder / "none" / "partner.json";
  const auto files = FederatedFiles::make({from});
  ASSERT_FALSE(files);
  EXPECT_THAT(files.error().text(), HasSubstr("none"));
}

}  // namespace
}  // namespace postern

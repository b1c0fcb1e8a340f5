// With a real token: SoftHSM (Debian: softhsm2), a software implementation of PKCS #11.
#include "certs/pkcs11_key.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "certs/authority.hpp"
#include "certs/certificate_builder.hpp"
#include "certs/private_key.hpp"
#include "tests/kit/test_authority.hpp"

namespace postern {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr const char* module_path = "/usr/lib/softhsm/libsofthsm2.so";

// One token for the process: the library reads its configuration once.
class Pkcs11Key : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    std::string pattern = (fs::temp_directory_path() / "postern-pkcs11-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder = pattern;
    fs::create_directory(folder / "tokens");
    std::ofstream(folder / "softhsm2.conf") << "directories.tokendir = " << (folder / "tokens").string() << "\nlog.level = ERROR\n";
    setenv("SOFTHSM2_CONF", (folder / "softhsm2.conf").c_str(), 1);
    const auto domain = TrustDomain::parse("example.org").value();
    files = Authority::create(domain, std::chrono::hours(24), std::chrono::system_clock::now()).value();
    std::ofstream(folder / "ca.key") << files.key;
    std::ofstream(folder / "pin") << "4711";
    run("softhsm2-util --init-token --free --label postern --so-pin 0815 --pin 4711");
    run("softhsm2-util --import " + (folder / "ca.key").string() + " --token postern --label ca --id 01 --pin 4711");
    fs::remove(folder / "ca.key");
    wrong_pin = error_of(uri("ca", "9999"));  // first of all: whoever has logged in once is not asked again
  }
  static void TearDownTestSuite() { fs::remove_all(folder); }

  static void run(const std::string& command) {
    ASSERT_EQ(std::system((command + " >" + (folder / "out").string() + " 2>&1").c_str()), 0)
        << command << ": " << std::ifstream(folder / "out").rdbuf();
  }
  static std::string uri(const std::string& object = "ca", const std::string& pin = "") {
    return "pkcs11:token=postern;object=" + object + "?module-path=" + module_path +
           (pin.empty() ? "&pin-source=file:" + (folder / "pin").string() : "&pin-value=" + pin);
  }
  static std::string error_of(const std::string& text) {
    const auto key = load_pkcs11_key(text);
    return key ? "loaded" : key.error().text();
  }

  static fs::path folder;
  static AuthorityFiles files;
  static std::string wrong_pin;
};

fs::path Pkcs11Key::folder;
AuthorityFiles Pkcs11Key::files;
std::string Pkcs11Key::wrong_pin;

TEST_F(Pkcs11Key, TheAuthoritySignsWithAKeyThatStaysInItsToken) {
  AuthorityFiles in_token = files;
  in_token.key = uri() + "\n";
  const auto now = std::chrono::system_clock::now();
  const auto domain = TrustDomain::parse("example.org").value();
  const auto authority = Authority::load(in_token, domain, now);
  ASSERT_TRUE(authority) << authority.error().text();
  const KeyPtr key = new_p256_key();
  const auto id = SpiffeId::parse("spiffe://example.org/ns/default/sa/default/pod/web/1").value();
  const auto svid = authority->sign_svid(key.get(), id, std::chrono::minutes(5), now);
  ASSERT_TRUE(svid) << svid.error().text();
  EXPECT_TRUE(parse_svid(svid->chain_pem, pem_of(key.get())));
}

TEST_F(Pkcs11Key, TheKeyDoesNotComeOut) {
  const auto key = load_pkcs11_key(uri());
  ASSERT_TRUE(key) << key.error().text();
  // What the engine gives out has the public half, and zeros for the other one.
  const std::string written = pem_of(key->get());
  EXPECT_NE(written, files.key);
  EXPECT_THAT(written, AnyOf(testing::IsEmpty(), HasSubstr("AAAAAAAAAAAAAAAAAAAA")));
}

TEST_F(Pkcs11Key, SaysWhatIsMissing) {
  EXPECT_EQ(error_of(uri("ca", "4711")), "loaded");
  EXPECT_THAT(error_of(uri("other")), HasSubstr("no such key"));
  EXPECT_THAT(error_of("pkcs11:token=postern;object=ca?pin-value=4711"), HasSubstr("module-path"));
  EXPECT_THAT(error_of(std::string("pkcs11:token=postern;object=ca?module-path=") + module_path), HasSubstr("pin-source"));
  EXPECT_THAT(error_of("file:/ca.key"), HasSubstr("expected a pkcs11: URI"));
  EXPECT_THAT(wrong_pin, HasSubstr("PIN is wrong"));
  EXPECT_THAT(wrong_pin, testing::Not(HasSubstr("9999")));
}

}  // namespace
}  // namespace postern

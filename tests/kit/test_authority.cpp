#include "tests/kit/test_authority.hpp"

#include <fcntl.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <stdexcept>

#include "certs/certificate_builder.hpp"
#include "certs/svid.hpp"

namespace postern::test {
namespace {

void require(bool ok, const char* what) {
  if (!ok) throw std::runtime_error(openssl_error(what).text());
}

template <class T>
T expect(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().text());
  return std::move(result).value();
}

KeyPtr make_key() {
  KeyPtr key = new_p256_key();
  require(key != nullptr, "key generation");
  return key;
}

void add_extension(X509* certificate, X509* issuer, int nid, const std::string& value) {
  require(postern::add_extension(certificate, issuer, nid, value), "adding an extension");
}

// By hand: the configuration syntax of OpenSSL could not carry every wrong name that a test wants.
void add_names(X509* certificate, const SvidOptions& options) {
  if (options.uris.empty() && options.dns.empty()) return;
  GENERAL_NAMES* names = sk_GENERAL_NAME_new_null();
  const auto add = [&](int type, const std::string& text) {
    ASN1_IA5STRING* value = ASN1_IA5STRING_new();
    ASN1_STRING_set(value, text.data(), static_cast<int>(text.size()));
    GENERAL_NAME* name = GENERAL_NAME_new();
    GENERAL_NAME_set0_value(name, type, value);
    sk_GENERAL_NAME_push(names, name);
  };
  if (!options.dns.empty()) add(GEN_DNS, options.dns);
  for (const std::string& uri : options.uris) add(GEN_URI, uri);
  const int critical = options.critical_names ? 1 : 0;
  int added = X509_add1_ext_i2d(certificate, NID_subject_alt_name, names, critical, 0);
  if (options.names_twice) added = X509_add1_ext_i2d(certificate, NID_subject_alt_name, names, critical, X509V3_ADD_APPEND);
  GENERAL_NAMES_free(names);
  require(added == 1, "adding subjectAltName");
}

void add_unknown_extension(X509* certificate) {
  ASN1_OBJECT* nobodys = OBJ_txt2obj("1.3.6.1.4.1.99999.1", 1);
  ASN1_OCTET_STRING* content = ASN1_OCTET_STRING_new();
  ASN1_OCTET_STRING_set(content, reinterpret_cast<const unsigned char*>("\x05\x00"), 2);
  X509_EXTENSION* extension = X509_EXTENSION_create_by_OBJ(nullptr, nobodys, 1, content);
  const bool added = X509_add_ext(certificate, extension, -1) == 1;
  X509_EXTENSION_free(extension);
  ASN1_OCTET_STRING_free(content);
  ASN1_OBJECT_free(nobodys);
  require(added, "adding an extension");
}

// Everything but the extensions and the signature. `issuer` null: self-signed.
X509Ptr make_certificate(std::string_view name, X509* issuer, EVP_PKEY* key, seconds not_before_offset, seconds ttl) {
  const SystemTime now = std::chrono::system_clock::now();
  X509Ptr certificate = unsigned_certificate("CN", name, issuer, key, now + not_before_offset, now + ttl);
  require(certificate != nullptr, "making a certificate");
  return certificate;
}

X509Ptr make_ca(std::string_view name, X509* issuer, EVP_PKEY* key, EVP_PKEY* signing_key, const CaOptions& options) {
  X509Ptr certificate = make_certificate(name, issuer, key, options.not_before_offset, options.ttl);
  X509* const signer = issuer == nullptr ? certificate.get() : issuer;
  std::string constraints = options.ca ? "critical,CA:TRUE" : "critical,CA:FALSE";
  if (options.path_length >= 0) constraints += ",pathlen:" + std::to_string(options.path_length);
  add_extension(certificate.get(), signer, NID_basic_constraints, constraints);
  if (!options.key_usage.empty()) add_extension(certificate.get(), signer, NID_key_usage, options.key_usage);
  add_extension(certificate.get(), signer, NID_subject_key_identifier, "hash");
  if (!options.uri.empty()) add_extension(certificate.get(), signer, NID_subject_alt_name, "URI:" + options.uri);
  if (!options.name_constraints.empty()) add_extension(certificate.get(), signer, NID_name_constraints, options.name_constraints);
  require(X509_sign(certificate.get(), signing_key, EVP_sha256()) > 0, "signing a CA");
  return certificate;
}

}  // namespace

TestAuthority TestAuthority::root(std::string_view name, const CaOptions& options) {
  TestAuthority authority;
  authority.key_ = make_key();
  authority.is_root_ = true;
  authority.chain_.push_back(make_ca(name, nullptr, authority.key_.get(), authority.key_.get(), options));
  return authority;
}

TestAuthority TestAuthority::intermediate(std::string_view name, const CaOptions& options) const {
  TestAuthority authority;
  authority.key_ = make_key();
  authority.chain_.push_back(make_ca(name, chain_.front().get(), authority.key_.get(), key_.get(), options));
  if (!is_root_) {
    for (const X509Ptr& certificate : chain_) authority.chain_.push_back(share(certificate.get()));
  }
  return authority;
}

TestAuthority TestAuthority::load(const std::string& certificate_pem, const std::string& key_pem) {
  TestAuthority authority;
  authority.chain_ = expect(parse_certificates_pem(certificate_pem, max_chain_length));
  const BioPtr bio(BIO_new_mem_buf(key_pem.data(), static_cast<int>(key_pem.size())));
  authority.key_.reset(PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr));
  require(authority.key_ != nullptr, "reading the CA's key");
  authority.is_root_ = X509_self_signed(authority.chain_.front().get(), 0) == 1;
  return authority;
}

TestSvid TestAuthority::issue(const SvidOptions& options) const {
  const KeyPtr key = options.rsa_bits == 0 ? make_key() : KeyPtr(EVP_RSA_gen(options.rsa_bits));
  require(key != nullptr, "key generation");
  X509* const issuer = chain_.front().get();
  const X509Ptr leaf = make_certificate("test SVID", issuer, key.get(), options.not_before_offset, options.ttl);
  std::string constraints = options.basic_constraints;
  if (constraints.empty()) constraints = options.ca ? "critical,CA:TRUE" : "critical,CA:FALSE";
  add_extension(leaf.get(), issuer, NID_basic_constraints, constraints);
  if (!options.subject) {
    const std::unique_ptr<X509_NAME, OpensslDeleter<X509_NAME, X509_NAME_free>> nobody(X509_NAME_new());
    require(X509_set_subject_name(leaf.get(), nobody.get()) == 1, "leaving out the subject");
  }
  if (options.unknown_critical) add_unknown_extension(leaf.get());
  if (!options.key_usage.empty()) add_extension(leaf.get(), issuer, NID_key_usage, options.key_usage);
  if (!options.extended_key_usage.empty()) add_extension(leaf.get(), issuer, NID_ext_key_usage, options.extended_key_usage);
  add_extension(leaf.get(), issuer, NID_subject_key_identifier, "hash");
  add_extension(leaf.get(), issuer, NID_authority_key_identifier, "keyid");
  add_names(leaf.get(), options);
  require(X509_sign(leaf.get(), key_.get(), options.digest == nullptr ? EVP_sha256() : options.digest) > 0, "signing an SVID");

  TestSvid svid{pem_of(leaf.get()), pem_of(key.get())};
  if (!is_root_) svid.chain_pem += certificate_pem();
  return svid;
}

TestSvid TestAuthority::issue(std::string_view spiffe_id) const {
  SvidOptions options;
  options.uris.emplace_back(spiffe_id);
  return issue(options);
}

std::string TestAuthority::certificate_pem() const {
  std::string text;
  for (const X509Ptr& certificate : chain_) text += pem_of(certificate.get());
  return text;
}

std::string TestAuthority::key_pem() const { return pem_of(key_.get()); }

TrustBundle TestAuthority::bundle(std::string_view trust_domain) const {
  return expect(TrustBundle::parse(certificate_pem(), expect(TrustDomain::parse(trust_domain))));
}

std::shared_ptr<const X509Context> make_context(const TestSvid& svid, const TestAuthority& authority) {
  X509Context context;
  context.svid = expect(parse_svid(svid.chain_pem, svid.key_pem));
  context.bundles.add(authority.bundle(context.svid.id.trust_domain()));
  return std::make_shared<const X509Context>(std::move(context));
}

void write_file(const std::string& path, std::string_view content, unsigned mode, long owner) {
  const std::string temporary = path + ".new";
  ::unlink(temporary.c_str());
  const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, static_cast<mode_t>(mode));
  const bool written = fd >= 0 && ::fchmod(fd, static_cast<mode_t>(mode)) == 0 &&
                       (owner < 0 || ::fchown(fd, static_cast<uid_t>(owner), static_cast<gid_t>(-1)) == 0) &&
                       ::write(fd, content.data(), content.size()) == static_cast<ssize_t>(content.size());
  if (fd >= 0) ::close(fd);
  if (!written || std::rename(temporary.c_str(), path.c_str()) != 0) throw std::runtime_error("cannot write " + path);
}

}  // namespace postern::test

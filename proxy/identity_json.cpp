#include "proxy/identity_json.hpp"

#include <openssl/evp.h>

#include <array>

#include "base/json_writer.hpp"

namespace postern {

namespace {

std::int64_t unix_seconds(SystemTime at) { return std::chrono::duration_cast<std::chrono::seconds>(at.time_since_epoch()).count(); }

std::string subject_of(const X509* certificate) {
  const BioPtr text(BIO_new(BIO_s_mem()));
  if (!text || X509_NAME_print_ex(text.get(), X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253) < 0) return {};
  char* data = nullptr;
  const long size = BIO_get_mem_data(text.get(), &data);
  return {data, static_cast<std::size_t>(size)};
}

std::string fingerprint_of(const X509* certificate) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  if (X509_digest(certificate, EVP_sha256(), digest.data(), &size) != 1) return {};
  constexpr std::string_view digits = "0123456789abcdef";
  std::string text;
  for (unsigned int i = 0; i < size; ++i) {
    text += digits[digest[i] >> 4U];
    text += digits[digest[i] & 15U];
  }
  return text;
}

void write_bundle(JsonWriter& json, const TrustBundle& bundle) {
  json.begin_object().field("trust_domain", bundle.domain().text()).key("authorities").begin_array();
  for (const X509Ptr& authority : bundle.authorities()) {
    json.begin_object().field("subject", subject_of(authority.get())).field("sha256", fingerprint_of(authority.get()));
    if (const auto serial = serial_of(authority.get())) json.field("serial", *serial);
    if (const auto ends = not_after_of(authority.get())) json.field("not_after", unix_seconds(*ends));
    json.end_object();
  }
  json.end_array().end_object();
}

}  // namespace

std::string identity_json(const X509Context* context, const IdentityFacts& facts) {
  JsonWriter json;
  json.begin_object().field("error", facts.error).field("source", facts.source);
  if (facts.next_renewal) json.field("next_renewal", unix_seconds(*facts.next_renewal));
  if (context != nullptr) {
    json.field("spiffe_id", context->svid.id.text()).field("serial", context->svid.serial);
    json.field("not_before", unix_seconds(context->svid.not_before)).field("not_after", unix_seconds(context->svid.not_after));
    json.key("bundles").begin_array();
    for (const auto& [domain, bundle] : context->bundles.all()) write_bundle(json, *bundle);
    json.end_array();
  }
  return json.end_object().take();
}

}  // namespace postern

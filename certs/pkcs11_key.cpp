// OpenSSL 3 calls engines deprecated; Debian 12 has no provider for PKCS #11.
#define OPENSSL_SUPPRESS_DEPRECATED
#include "certs/pkcs11_key.hpp"

#include <openssl/engine.h>

#include <string>

namespace postern {
namespace {

constexpr std::string_view scheme = "pkcs11:";
constexpr std::size_t longest_uri = 2048;

void free_engine(ENGINE* engine) noexcept { ENGINE_free(engine); }
void finish_engine(ENGINE* engine) noexcept { ENGINE_finish(engine); }
using EnginePtr = std::unique_ptr<ENGINE, OpensslDeleter<ENGINE, free_engine>>;
using RunningEnginePtr = std::unique_ptr<ENGINE, OpensslDeleter<ENGINE, finish_engine>>;

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view space = " \t\r\n";
  const auto first = text.find_first_not_of(space);
  return first == std::string_view::npos ? std::string_view() : text.substr(first, text.find_last_not_of(space) + 1 - first);
}

// The value of a query attribute (RFC 7512 section 2.3), and what is left of the URI without it.
std::string take_attribute(std::string& uri, std::string_view name) {
  const std::string wanted = std::string(name) + "=";
  for (std::size_t at = uri.find('?'); at != std::string::npos; at = uri.find('&', at + 1)) {
    if (uri.compare(at + 1, wanted.size(), wanted) != 0) continue;
    const std::size_t end = std::min(uri.find('&', at + 1), uri.size());
    std::string value = uri.substr(at + 1 + wanted.size(), end - at - 1 - wanted.size());
    const bool is_last = end == uri.size();
    uri.erase(is_last ? at : at + 1, end - at);
    return value;
  }
  return {};
}

}  // namespace

bool is_pkcs11_uri(std::string_view text) { return trimmed(text).starts_with(scheme); }

Result<KeyPtr> load_pkcs11_key(std::string_view text) {
  std::string uri(trimmed(text));
  const std::string shown = "PKCS #11 key " + uri.substr(0, std::min<std::size_t>(uri.find('?'), 200));
  if (!is_pkcs11_uri(uri) || uri.size() > longest_uri)
    return Error{shown + ": expected a pkcs11: URI of at most 2048 bytes (RFC 7512)", {}};
  const std::string module = take_attribute(uri, "module-path");
  if (module.empty() || module.front() != '/') return Error{shown + ": expected ?module-path= and the path of the token's library", {}};
  if (uri.find("pin-source=") == std::string::npos && uri.find("pin-value=") == std::string::npos)
    return Error{shown + ": expected pin-source=file:PATH (or pin-value=) in its query; nobody is asked for a PIN", {}};

  OPENSSL_init_crypto(OPENSSL_INIT_ENGINE_DYNAMIC, nullptr);
  const EnginePtr engine(ENGINE_by_id("pkcs11"));
  if (!engine) return openssl_error(shown + ": OpenSSL's engine pkcs11 is not installed (Debian: libengine-pkcs11-openssl)");
  if (ENGINE_ctrl_cmd_string(engine.get(), "MODULE_PATH", module.c_str(), 0) != 1 || ENGINE_init(engine.get()) != 1)
    return openssl_error(shown + ": the token's library cannot be used: " + module);
  const RunningEnginePtr running(engine.get());
  // The key keeps the engine running.
  KeyPtr key(ENGINE_load_private_key(engine.get(), uri.c_str(), nullptr, nullptr));
  OPENSSL_cleanse(uri.data(), uri.size());
  if (!key) return openssl_error(shown + ": there is no such key in the token, or the PIN is wrong");
  return key;
}

}  // namespace postern

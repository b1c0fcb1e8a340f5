#include "certs/federated_files.hpp"

#include <openssl/sha.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <utility>

#include "base/document_files.hpp"
#include "certs/spiffe_bundle.hpp"
#include "certs/svid.hpp"

namespace postern {
namespace {

std::string digest_of(const std::string& text) {
  std::array<unsigned char, SHA256_DIGEST_LENGTH> hash{};
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), hash.data());
  return {hash.begin(), hash.end()};
}

bool is_same(const HeldBundle& held, const std::shared_ptr<const TrustBundle>& other) {
  if (held.bundle == nullptr || other == nullptr) return held.bundle == other;
  return held.bundle->hash() == other->hash();
}

Result<HeldBundle> parse(std::string_view text, const TrustDomain& domain) {
  HeldBundle out;
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  std::vector<X509Ptr> authorities;
  if (first != std::string_view::npos && text[first] == '{') {
    auto read = parse_spiffe_bundle(text);
    if (!read) return read.error();
    out.sequence = read->sequence;
    out.refresh_hint = read->refresh_hint;
    authorities = std::move(read->authorities);
    if (authorities.empty()) return out;
  } else {
    auto read = parse_certificates_pem(text, max_authorities);
    if (!read) return read.error();
    authorities = *std::move(read);
  }
  auto bundle = TrustBundle::make(std::move(authorities), domain);
  if (!bundle) return bundle.error();
  out.bundle = std::make_shared<const TrustBundle>(*std::move(bundle));
  return out;
}

}  // namespace

Result<bool> accept_bundle(HeldBundle& held, std::string_view text, const TrustDomain& domain) {
  auto next = parse(text, domain);
  if (!next) return Error{"the bundle of " + domain.text() + " cannot be read: " + next.error().text(), {}};
  if (held.sequence && next->sequence && *next->sequence < *held.sequence) {
    return Error{"the bundle of " + domain.text() + " is older than the one in force: spiffe_sequence " + std::to_string(*next->sequence) +
                     ", after " + std::to_string(*held.sequence),
                 {}};
  }
  const bool changed = !is_same(held, next->bundle);
  held = *std::move(next);
  return changed;
}

Result<FederatedFiles> FederatedFiles::make(const std::vector<FederatedBundle>& bundles) {
  FederatedFiles made;
  std::vector<std::string> paths;
  for (const FederatedBundle& one : bundles) {
    if (one.file.empty()) continue;
    made.files_.push_back({.domain = one.domain, .path = one.file, .held = {}});
    paths.push_back(one.file);
  }
  if (paths.empty()) return made;
  auto watched = WatchedFiles::make(std::move(paths));
  if (!watched) return watched.error();
  made.watched_.emplace(*std::move(watched));
  return made;
}

bool FederatedFiles::poll() {
  if (!watched_) return false;
  watched_->drain();
  // A folder that is gone shows up as a file that is gone.
  [[maybe_unused]] const auto renewed = watched_->renew();
  bool changed = false;
  for (File& file : files_) changed = read(file) || changed;
  return changed;
}

bool FederatedFiles::read(File& file) {
  const auto complain = [&](std::string fault) {
    if (fault == file.fault) return;
    file.fault = fault;
    ++file.refused;
    warnings_.push_back(file.path + ": " + std::move(fault));
  };
  struct stat info {};
  if (::stat(file.path.c_str(), &info) != 0 && (errno == ENOENT || errno == ENOTDIR)) {
    complain("there is no such file: nobody of " + file.domain.text() + " is trusted");
    file.digest.clear();
    file.withdrawn = true;
    return std::exchange(file.held, {}).bundle != nullptr;
  }
  // A FIFO in its place must not hold us up.
  const auto text = S_ISREG(info.st_mode) ? read_file(file.path, max_pem_bytes) : Result<std::string>(Error{"is no regular file", {}});
  if (!text) {
    complain(text.error().message + "; the last good bundle stays in force");
    return false;
  }
  std::string digest = digest_of(*text);
  if (digest == file.digest) {
    if (!file.withdrawn) file.fault.clear();
    return false;
  }
  const auto accepted = accept_bundle(file.held, *text, file.domain);
  if (!accepted) {
    // Read in the middle of a change: the next event brings the rest.
    if (!watched_->has_events()) complain(accepted.error().text() + "; the last good bundle stays in force");
    return false;
  }
  file.fault.clear();
  file.digest = std::move(digest);
  file.withdrawn = file.held.bundle == nullptr;
  if (file.withdrawn) complain("the bundle has no key for X.509-SVIDs: nobody of " + file.domain.text() + " is trusted");
  return *accepted;
}

}  // namespace postern

#include "certs/file_source.hpp"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "certs/x509_context.hpp"

namespace postern {
namespace {

// Text that is wiped when it goes: it may hold a private key.
struct SecretText {
  std::string text;
  SecretText() = default;
  SecretText(SecretText&& other) noexcept : text(std::move(other.text)) {}
  SecretText& operator=(SecretText&&) = delete;
  ~SecretText() { OPENSSL_cleanse(text.data(), text.size()); }
};

struct OpenFile {
  int fd = -1;
  explicit OpenFile(int descriptor) : fd(descriptor) {}
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  ~OpenFile() {
    if (fd >= 0) ::close(fd);
  }
};

Error system_error(const std::string& path, const char* doing) {
  return Error{std::string("cannot ") + doing + ": " + std::strerror(errno), path};
}

Result<SecretText> read_file(const std::string& path, std::size_t limit, mode_t* mode) {
  // O_NONBLOCK: a FIFO in its place must not hold us up.
  const OpenFile file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (file.fd < 0) return system_error(path, "open");
  struct stat info {};
  if (::fstat(file.fd, &info) != 0) return system_error(path, "stat");
  if (!S_ISREG(info.st_mode)) return Error{"is no regular file", path};
  if (mode != nullptr) *mode = info.st_mode;

  if (static_cast<std::uint64_t>(info.st_size) > limit) return Error{"is larger than " + std::to_string(limit) + " bytes", path};

  SecretText content;
  content.text.resize(static_cast<std::size_t>(info.st_size) + 1);  // at once: growing would leave copies of a key behind
  std::size_t size = 0;
  while (size < content.text.size()) {
    const ssize_t got = ::read(file.fd, content.text.data() + size, content.text.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return system_error(path, "read");
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  if (size == content.text.size()) return Error{"grew while it was read", path};  // its writer's next event brings the rest
  content.text.resize(size);
  return content;
}

struct Contents {
  SecretText chain;
  SecretText key;
  SecretText bundle;
  mode_t key_mode = 0;
};

Result<Contents> read_all(const SvidFiles& files) {
  mode_t key_mode = 0;
  auto chain = read_file(files.chain, max_pem_bytes, nullptr);
  if (!chain) return chain.error();
  auto key = read_file(files.key, max_key_bytes, &key_mode);
  if (!key) return key.error();
  auto bundle = read_file(files.bundle, max_pem_bytes, nullptr);
  if (!bundle) return bundle.error();
  return Contents{std::move(chain).value(), std::move(key).value(), std::move(bundle).value(), key_mode};
}

std::string digest_of(const Contents& contents) {
  std::string digest;
  for (const std::string* text : {&contents.chain.text, &contents.key.text, &contents.bundle.text}) {
    std::array<unsigned char, SHA256_DIGEST_LENGTH> hash{};
    SHA256(reinterpret_cast<const unsigned char*>(text->data()), text->size(), hash.data());
    digest.append(hash.begin(), hash.end());
  }
  return digest;
}

Result<X509ContextPtr> parse_context(const SvidFiles& files, const Contents& contents, SystemTime now) {
  auto svid = parse_svid(contents.chain.text, contents.key.text);
  if (!svid) return Error{svid.error().message, files.chain + " (key " + files.key + ")"};
  auto domain = TrustDomain::parse(svid->id.trust_domain());
  if (!domain) return Error{domain.error().message, files.chain};
  auto bundle = TrustBundle::parse(contents.bundle.text, std::move(domain).value());
  if (!bundle) return Error{bundle.error().message, files.bundle};
  TrustBundleSet bundles;
  bundles.add(std::move(bundle).value());

  return make_x509_context(std::move(svid).value(), std::move(bundles), now, files.chain, files.bundle);
}

}  // namespace

Result<std::unique_ptr<FileSource>> FileSource::make(SvidFiles files) {
  auto watched = WatchedFiles::make({files.chain, files.key, files.bundle});
  if (!watched) return watched.error();
  return std::unique_ptr<FileSource>(new FileSource(std::move(files), *std::move(watched)));
}

std::optional<Result<X509ContextPtr>> FileSource::poll() {
  watched_.drain();
  auto read = watched_.renew() ? read_all(files_) : Result<Contents>(Error{"the folder is gone", files_.chain});
  std::string digest = read ? digest_of(*read) : std::string();
  if (read && digest == accepted_ && last_error_.empty()) return std::nullopt;

  auto parsed = read ? parse_context(files_, *read, std::chrono::system_clock::now()) : Result<X509ContextPtr>(read.error());
  if (!parsed) {
    // Read in the middle of a change: the next event brings the rest. What was said once is not said again.
    if (watched_.has_events() || parsed.error().text() == last_error_) return std::nullopt;
    last_error_ = parsed.error().text();
    return parsed;
  }
  if ((read->key_mode & S_IROTH) != 0) warnings_.push_back(files_.key + ": the private key is readable by every user; expected mode 0600");
  last_error_.clear();
  accepted_ = std::move(digest);
  return parsed;
}

std::vector<std::string> FileSource::take_warnings() { return std::exchange(warnings_, {}); }

}  // namespace postern

#include "control/kube_client.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <boost/asio/ssl/context.hpp>
#include <boost/beast/http/verb.hpp>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "certs/tls_context.hpp"
#include "control/kube_connection.hpp"
#include "control/watch_decoder.hpp"

namespace postern {
namespace asio = boost::asio;
namespace http = boost::beast::http;

namespace {

using Clock = KubeConnection::Clock;

constexpr std::size_t kIdleConnections = 8;
constexpr std::chrono::seconds kIdle{45};        // kube-apiserver ends idle ones after 90 s
constexpr std::chrono::seconds kLookAtFiles{1};  // at most this often

http::verb verb_of(KubeMethod method) {
  switch (method) {
    case KubeMethod::get: return http::verb::get;
    case KubeMethod::post: return http::verb::post;
    case KubeMethod::put: return http::verb::put;
    case KubeMethod::patch: return http::verb::patch;
    case KubeMethod::remove: return http::verb::delete_;
  }
  return http::verb::get;
}

bool is_idempotent(KubeMethod method) { return method == KubeMethod::get || method == KubeMethod::put || method == KubeMethod::remove; }

std::string text_of(const KubeRequest& request) {
  const auto name = http::to_string(verb_of(request.method));
  return std::string(name.data(), name.size()) + " " + request.path.substr(0, request.path.find('?'));
}

// What tells one version of a file from another. A mounted Secret is replaced by a change of symbolic links, hence the inode.
struct FileStamp {
  dev_t device = 0;
  ino_t inode = 0;
  off_t size = 0;
  std::int64_t changed_ns = 0;

  static FileStamp of(const std::string& path) {
    struct stat status {};
    if (path.empty() || ::stat(path.c_str(), &status) != 0) return {};
    return {status.st_dev, status.st_ino, status.st_size, status.st_mtim.tv_sec * 1'000'000'000 + status.st_mtim.tv_nsec};
  }
  bool operator==(const FileStamp&) const = default;
};

using ContextPtr = std::shared_ptr<asio::ssl::context>;

// Replaces OpenSSL's own verification of the presented chain.
int verify_spiffe_server(X509_STORE_CTX* store, void* argument) {
  auto& expected = *static_cast<SpiffeServer*>(argument);
  const PeerVerification verified = verify_peer(X509_STORE_CTX_get0_untrusted(store), expected.bundles, TlsEnd::server,
                                                std::chrono::system_clock::now(), TlsSettings{}.clock_skew);
  if (!verified.peer) {
    expected.refusal = std::string(describe(verified.error)) + (verified.detail.empty() ? "" : " (" + verified.detail + ")");
  } else if (verified.peer->id != expected.id) {
    expected.refusal = "it is that of " + verified.peer->id.text();
  } else {
    X509_STORE_CTX_set_error(store, X509_V_OK);
    return 1;
  }
  X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION);
  return 0;
}

Result<ContextPtr> make_context(const KubeConfig& config) {
  auto context = std::make_shared<asio::ssl::context>(asio::ssl::context::tls_client);
  SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
  context->set_verify_mode(asio::ssl::verify_peer);
  boost::system::error_code ec;
  if (config.spiffe_server) {
    SSL_CTX_set_cert_verify_callback(context->native_handle(), verify_spiffe_server, config.spiffe_server.get());
    return context;
  }
  const auto refused = [&](const KubeCredential& from, const char* what) {
    return Error{std::string("no ") + what + " in PEM can be read: " + ec.message(), from.file.empty() ? config.source : from.file};
  };
  if (config.authority.empty()) {
    context->set_default_verify_paths(ec);
    if (ec) return Error{"the system's certificate authorities cannot be read: " + ec.message(), config.source};
  } else {
    const auto text = config.authority.read();
    if (!text) return text.error();
    context->add_certificate_authority(asio::buffer(*text), ec);
    if (ec) return refused(config.authority, "certificate authority");
  }
  if (config.client_certificate.empty()) return context;
  const auto certificate = config.client_certificate.read();
  if (!certificate) return certificate.error();
  context->use_certificate_chain(asio::buffer(*certificate), ec);
  if (ec) return refused(config.client_certificate, "client certificate");
  const auto key = config.client_key.read();
  if (!key) return key.error();
  context->use_private_key(asio::buffer(*key), asio::ssl::context::pem, ec);
  if (ec) return refused(config.client_key, "key that fits the client certificate");
  return context;
}

}  // namespace

Error refusal_of(const KubeRequest& request, const KubeResponse& response) {
  const ApiStatus status = decode_status(response.body);
  std::string message = std::to_string(response.status);
  if (!status.reason.empty()) message += " " + status.reason;
  if (!status.message.empty()) message += ": " + status.message.substr(0, 1000);
  return Error{std::move(message), text_of(request)};
}

class KubeClient::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(asio::io_context& io, KubeConfig given) : config(std::move(given)), io_(io) {}

  asio::awaitable<Result<KubeResponse>> perform(KubeRequest request, Sink sink) {
    const auto self = shared_from_this();  // until this ends
    const auto deadline = Clock::now() + request.deadline;
    ++stats.requests;
    for (bool fresh = false;; fresh = true) {
      auto taken = co_await take(fresh, deadline);
      if (!taken) {
        ++stats.failures;
        co_return Error{taken.error().text(), text_of(request)};
      }
      if (request.stop && request.stop->stopped()) co_return Error{"stopped", text_of(request)};
      const std::shared_ptr<KubeConnection> connection = std::move(*taken);
      const bool reused = connection->used;
      const KubeConnection::Request message = message_of(request);
      open_.insert(connection.get());
      if (request.stop) request.stop->close_ = [connection] { connection->close(); };
      auto outcome = co_await connection->perform(message, request, sink ? &sink : nullptr, deadline);
      open_.erase(connection.get());
      if (request.stop) request.stop->close_ = nullptr;
      if (request.stop && request.stop->stopped()) co_return Error{"stopped", text_of(request)};
      if (outcome.response && outcome.response->status == 401) looked_at_files_ = {};  // perhaps the token has just been replaced
      if (outcome.reusable && !closed) give_back(connection);
      if (!outcome.response && !outcome.answered && reused && is_idempotent(request.method) && !closed) continue;
      if (!outcome.response) {
        ++stats.failures;
        co_return Error{outcome.response.error().text(), text_of(request)};
      }
      co_return std::move(outcome.response);
    }
  }

  void close() {
    closed = true;
    idle_.clear();
    for (KubeConnection* connection : open_) connection->close();
  }

  const KubeConfig config;
  Stats stats;
  bool closed = false;

 private:
  asio::awaitable<Result<std::shared_ptr<KubeConnection>>> take(bool fresh, Clock::time_point deadline) {
    if (closed) co_return Error{"the client is closed", {}};
    if (const auto read = look_at_files(); !read) co_return read.error();
    const auto now = Clock::now();
    std::erase_if(idle_, [&](const auto& connection) { return fresh || now - connection->idle_since > kIdle; });
    if (!idle_.empty()) {
      auto connection = std::move(idle_.back());
      idle_.pop_back();
      co_return connection;
    }
    auto connection = std::make_shared<KubeConnection>(io_, context_);
    open_.insert(connection.get());
    const auto connected = co_await connection->connect(config, deadline);
    open_.erase(connection.get());
    if (!connected) co_return connected.error();
    ++stats.connections;
    co_return connection;
  }

  void give_back(std::shared_ptr<KubeConnection> connection) {
    connection->idle_since = Clock::now();
    if (idle_.size() == kIdleConnections) idle_.erase(idle_.begin());
    idle_.push_back(std::move(connection));
  }

  KubeConnection::Request message_of(const KubeRequest& request) const {
    KubeConnection::Request message(verb_of(request.method), config.base_path + request.path, 11);
    message.set(http::field::host, config.host.find(':') == std::string::npos ? config.host : "[" + config.host + "]");
    message.set(http::field::user_agent, "postern-control");
    message.set(http::field::accept, "application/json");
    if (!token_.empty()) message.set(http::field::authorization, "Bearer " + token_);
    if (!request.body.empty()) message.set(http::field::content_type, request.content_type);
    message.body() = request.body;
    message.prepare_payload();
    return message;
  }

  // Reads what has been replaced. What cannot be read now, but could before, stays as it was: a file may be in the middle of its
  // replacement.
  Result<void> look_at_files() {
    const auto now = Clock::now();
    if (context_ != nullptr && looked_at_files_ && now - *looked_at_files_ < kLookAtFiles) return {};
    looked_at_files_ = now;
    const std::vector<FileStamp> stamps = {FileStamp::of(config.authority.file), FileStamp::of(config.client_certificate.file),
                                           FileStamp::of(config.client_key.file)};
    if (context_ == nullptr || stamps != stamps_) {
      auto context = make_context(config);
      if (!context && context_ == nullptr) return context.error();
      if (context) {
        if (context_ != nullptr) ++stats.reloads;
        context_ = std::move(*context);
        stamps_ = stamps;
        idle_.clear();
      }
    }
    const FileStamp token_stamp = FileStamp::of(config.token.file);
    if (config.token.empty() || (!token_.empty() && token_stamp == token_stamp_)) return {};
    auto token = config.token.read();
    if (!token && token_.empty()) return token.error();
    if (token) {
      if (!token_.empty()) ++stats.reloads;
      token->erase(std::remove_if(token->begin(), token->end(), [](unsigned char c) { return c <= ' ' || c == 0x7F; }), token->end());
      token_ = std::move(*token);
      token_stamp_ = token_stamp;
    }
    return {};
  }

  asio::io_context& io_;
  ContextPtr context_;
  std::vector<FileStamp> stamps_;
  std::string token_;
  FileStamp token_stamp_;
  std::optional<Clock::time_point> looked_at_files_;
  std::vector<std::shared_ptr<KubeConnection>> idle_;
  std::set<KubeConnection*> open_;
};

KubeClient::KubeClient(asio::io_context& io, KubeConfig config) : impl_(std::make_shared<Impl>(io, std::move(config))) {}
KubeClient::~KubeClient() { impl_->close(); }

asio::awaitable<Result<KubeResponse>> KubeClient::request(KubeRequest request) { return impl_->perform(std::move(request), {}); }
asio::awaitable<Result<KubeResponse>> KubeClient::stream(KubeRequest request, Sink sink) {
  return impl_->perform(std::move(request), std::move(sink));
}
void KubeClient::close() { impl_->close(); }
bool KubeClient::closed() const { return impl_->closed; }
const KubeConfig& KubeClient::config() const { return impl_->config; }
KubeClient::Stats KubeClient::stats() const { return impl_->stats; }

}  // namespace postern

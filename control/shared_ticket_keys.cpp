#include "control/shared_ticket_keys.hpp"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <utility>

#include "base/base64.hpp"
#include "base/document.hpp"
#include "base/json_writer.hpp"

namespace postern {
namespace {

namespace asio = boost::asio;

constexpr unsigned attempts = 4;  // when others write the Secret at the same time
constexpr std::string_view data_key = "keys";

std::string text_at(const Node& object, std::initializer_list<std::string_view> path) {
  const Node* at = &object;
  for (const std::string_view name : path) {
    at = at->find(name);
    if (at == nullptr) return {};
  }
  return at->is(Node::Kind::string) ? at->scalar : std::string();
}

}  // namespace

SharedTicketKeys::SharedTicketKeys(asio::io_context& io, KubeClient& client, SharedTicketKeysSettings settings, Log& log,
                                   std::function<void(TicketKeys)> use)
    : io_(io), client_(client), settings_(std::move(settings)), log_(log), use_(std::move(use)) {}

void SharedTicketKeys::start() { asio::co_spawn(io_, run(), asio::detached); }

// Often enough that a new key is known everywhere before it seals, and that no rotation is missed by much.
std::chrono::seconds SharedTicketKeys::interval() const {
  return std::clamp(settings_.rotation / 20, std::chrono::seconds{1}, std::chrono::seconds{60});
}

asio::awaitable<void> SharedTicketKeys::run() {
  asio::steady_timer pause(io_);
  while (!client_.closed()) {
    const Result<void> looked = co_await look();
    const std::string error = looked ? std::string() : looked.error().text();
    if (!error.empty() && error != last_error_ && !client_.closed()) {
      log_.warning("ticket_keys_not_shared",
                   {{"secret", settings_.ns + "/" + settings_.secret},
                    {"error", error},
                    {"then", shared() ? "the last keys stay in use" : "sidecars that come from another replica make a full handshake"},
                    {"remedy", "postern-control needs get, create and update on this Secret"}});
    }
    last_error_ = error;
    pause.expires_after(interval());
    co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
  }
}

asio::awaitable<Result<void>> SharedTicketKeys::look() {
  for (unsigned attempt = 0; attempt < attempts; ++attempt) {
    auto stored = co_await read();
    if (!stored) co_return stored.error();
    auto due = rotated(stored->ring, std::chrono::system_clock::now(), settings_.rotation);
    if (!due) co_return due.error();
    if (stored->exists && *due == stored->ring) {
      adopt(std::move(stored->ring));
      co_return Result<void>();
    }
    const auto written = co_await write(*due, *stored);
    if (!written) co_return written.error();
    if (*written) {
      adopt(*std::move(due));
      co_return Result<void>();
    }
  }
  co_return Error{"other replicas write it all the time", {}};
}

asio::awaitable<Result<SharedTicketKeys::Stored>> SharedTicketKeys::read() {
  KubeRequest request;
  request.path = "/api/v1/namespaces/" + settings_.ns + "/secrets/" + settings_.secret;
  const KubeRequest asked = request;
  const auto response = co_await client_.request(std::move(request));
  if (!response) co_return response.error();
  if (response->status == 404) co_return Stored{};
  if (!response->ok()) co_return refusal_of(asked, *response);
  const auto object = parse_json(response->body, asked.path);
  if (!object) co_return object.error();
  Stored out;
  out.exists = true;
  out.version = text_at(object->root, {"metadata", "resourceVersion"});
  const auto text = from_base64(text_at(object->root, {"data", data_key}));
  auto ring = text ? decode_ticket_keys(*text) : Result<TicketKeyRing>(Error{"data.keys is no base64", {}});
  if (!ring) co_return Error{ring.error().text(), settings_.ns + "/" + settings_.secret};
  out.ring = *std::move(ring);
  co_return out;
}

asio::awaitable<Result<bool>> SharedTicketKeys::write(const TicketKeyRing& ring, const Stored& before) {
  JsonWriter out;
  out.begin_object().field("apiVersion", "v1").field("kind", "Secret").field("type", "postern.dev/ticket-keys");
  out.key("metadata").begin_object().field("namespace", settings_.ns).field("name", settings_.secret);
  out.text("resourceVersion", before.version).end_object();
  out.key("stringData").begin_object().field(data_key, encode_ticket_keys(ring)).end_object();
  KubeRequest request;
  request.method = before.exists ? KubeMethod::put : KubeMethod::post;
  request.path = "/api/v1/namespaces/" + settings_.ns + "/secrets" + (before.exists ? "/" + settings_.secret : "");
  request.body = out.end_object().take();
  KubeRequest asked;
  asked.path = request.path;
  asked.method = request.method;
  const auto response = co_await client_.request(std::move(request));
  if (!response) co_return response.error();
  // Somebody else has made or changed it, or deleted it: look again.
  if (response->status == 409 || (before.exists && response->status == 404)) co_return false;
  if (!response->ok()) co_return refusal_of(asked, *response);
  log_.info("ticket_keys_written", {{"secret", settings_.ns + "/" + settings_.secret}, {"keys", std::to_string(ring.size())}});
  co_return true;
}

void SharedTicketKeys::adopt(TicketKeyRing ring) {
  TicketKeys keys = keys_in_use(ring, std::chrono::system_clock::now(), 2 * interval());
  if (ring == ring_ && keys.seals == seals_) return;
  ring_ = std::move(ring);
  seals_ = keys.seals;
  use_(std::move(keys));
}

}  // namespace postern

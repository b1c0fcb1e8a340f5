#include "proxy/signing_client.hpp"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <memory>
#include <optional>

#include "certs/tls_context.hpp"
#include "certs/tls_socket.hpp"
#include "proxy/host_port.hpp"
#include "proxy/socket_deadline.hpp"

namespace postern {

namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using boost::system::error_code;

constexpr auto as_values = asio::as_tuple(asio::use_awaitable);
constexpr auto connect_within = std::chrono::seconds(3);
constexpr auto answer_within = std::chrono::seconds(15);  // the control plane asks the API server twice
constexpr std::uint32_t header_bytes = 8U << 10;

asio::awaitable<Result<SigningAnswer>> exchange(TlsSocket& socket, const SigningRequest& request) {
  http::request<http::string_body> message(http::verb::post, std::string(signing_path), 11);
  message.set(http::field::host, "postern-control");
  message.set(http::field::content_type, "application/json");
  message.body() = encode(request);
  message.prepare_payload();
  const auto [write_error, written] = co_await http::async_write(socket, message, as_values);
  if (write_error) co_return Error{write_error.message(), {}};
  beast::flat_buffer buffer;
  http::response_parser<http::string_body> parser;
  parser.header_limit(header_bytes);
  parser.body_limit(signing_answer_bytes);
  const auto [read_error, got] = co_await http::async_read(socket, buffer, parser, as_values);
  if (read_error) co_return Error{"its answer cannot be read: " + read_error.message(), {}};
  const std::string& body = parser.get().body();
  if (parser.get().result_int() != 200) {
    const std::string why = signing_error_of(body);
    co_return Error{"it refused (" + std::to_string(parser.get().result_int()) + ")" + (why.empty() ? "" : ": " + why), {}};
  }
  co_return decode_signing_answer(body);
}

asio::awaitable<Result<SigningAnswer>> ask_one(tcp::endpoint to, const TlsContext& tls, const SpiffeId& control,
                                               const SigningRequest& request) {
  const asio::any_io_executor executor = co_await asio::this_coro::executor;
  tcp::socket socket(executor);
  {
    const SocketDeadline deadline(executor, connect_within, socket);
    const auto [error] = co_await socket.async_connect(to, as_values);
    if (deadline.passed()) co_return Error{"nothing answers there", {}};
    if (error) co_return Error{error.message(), {}};
  }
  const auto address = IpAddress::parse(to.address().to_string());
  if (!address) co_return address.error();
  SslPtr ssl = tls.new_client(SocketAddress{*address, Port{to.port()}}, true);
  if (!ssl) co_return Error{"out of memory", {}};
  TlsSocket secured(std::move(socket), std::move(ssl));
  const SocketDeadline deadline(executor, answer_within, secured.next_layer());
  auto shaken = co_await secured.handshake();
  if (!shaken) co_return shaken.error();
  // A pod's SVID is as valid as the control plane's: only this one name may see our token.
  const auto peer = TlsContext::peer_identity(secured.ssl());
  if (!peer || !(peer->id == control)) {
    co_return Error{
        "it proved to be " + (peer ? peer->id.text() : std::string("nobody")) + ", not " + control.text() + "; not one byte was sent to it",
        {}};
  }
  auto answer = co_await exchange(secured, request);
  secured.close();
  co_return answer;
}

}  // namespace

asio::awaitable<Result<SigningAnswer>> ask_to_sign(std::vector<std::string> addresses, TrustBundle roots, SpiffeId control,
                                                   SigningRequest request, std::mt19937_64& random) {
  X509Context nobody;
  nobody.bundles.add(std::move(roots));
  TlsSettings settings;
  settings.alpn = signing_alpn;
  settings.resumption = false;
  const auto tls = TlsContext::make(std::make_shared<const X509Context>(std::move(nobody)), settings, nullptr, 0);
  if (!tls) co_return tls.error();

  std::vector<tcp::endpoint> endpoints;
  Error last{"no address", "identity.controlPlane.addresses"};
  tcp::resolver resolver(co_await asio::this_coro::executor);
  for (const std::string& address : addresses) {
    const auto [host, port] = split_host_port(address);
    const auto resolved = co_await resolver.async_resolve(host, port, as_values);
    const error_code error = std::get<0>(resolved);
    if (error) last = Error{"its name cannot be resolved: " + error.message(), address};
    for (const auto& entry : std::get<1>(resolved)) endpoints.push_back(entry.endpoint());
  }
  std::shuffle(endpoints.begin(), endpoints.end(), random);
  for (const tcp::endpoint& endpoint : endpoints) {
    auto answer = co_await ask_one(endpoint, *tls, control, request);
    if (answer) co_return answer;
    last = Error{answer.error().text(), endpoint.address().to_string() + ":" + std::to_string(endpoint.port())};
  }
  co_return last;
}

}  // namespace postern

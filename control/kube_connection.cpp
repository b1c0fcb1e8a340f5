#include "control/kube_connection.hpp"

#include <netinet/tcp.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/write.hpp>
#include <charconv>
#include <vector>

#include "base/ip.hpp"

namespace postern {
namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;

namespace {

constexpr auto as_values = asio::as_tuple(asio::use_awaitable);
constexpr std::uint32_t kHeaderBytes = 64U << 10;

std::string place_of(const KubeConfig& config) {
  const bool is_v6 = config.host.find(':') != std::string::npos;
  return "https://" + (is_v6 ? "[" + config.host + "]" : config.host) + ":" + std::to_string(config.port);
}

std::string text_of(const boost::system::error_code& ec) {
  if (ec == beast::error::timeout) return "no answer in time";
  if (ec == http::error::end_of_stream || ec == http::error::partial_message || ec == asio::error::eof ||
      ec == asio::ssl::error::stream_truncated) {
    return "the connection was closed";
  }
  return ec.message();
}

// A server that has gone away without a word is noticed within half a minute, also while a watch is silent.
void set_options(tcp::socket& socket) {
  boost::system::error_code ignored;
  socket.set_option(tcp::no_delay(true), ignored);
  socket.set_option(asio::socket_base::keep_alive(true), ignored);
  const auto set = [&](int option, int value) { ::setsockopt(socket.native_handle(), IPPROTO_TCP, option, &value, sizeof value); };
  set(TCP_KEEPIDLE, 15);
  set(TCP_KEEPINTVL, 5);
  set(TCP_KEEPCNT, 3);
  set(TCP_USER_TIMEOUT, 30'000);
}

}  // namespace

asio::awaitable<Result<std::vector<tcp::endpoint>>> KubeConnection::resolve(const KubeConfig& config) {
  std::vector<tcp::endpoint> out;
  boost::system::error_code not_an_address;
  const auto address = asio::ip::make_address(config.host, not_an_address);
  if (!not_an_address) {
    out.emplace_back(address, config.port);
    co_return out;
  }
  tcp::resolver resolver(stream_.get_executor());
  const std::string port = std::to_string(config.port);
  auto [ec, found] = co_await resolver.async_resolve(config.host, port, as_values);
  if (ec) co_return Error{"the name " + config.host + " cannot be resolved: " + ec.message(), place_of(config)};
  for (const auto& entry : found) out.push_back(entry.endpoint());
  co_return out;
}

asio::awaitable<Result<void>> KubeConnection::connect(const KubeConfig& config, Clock::time_point deadline) {
  auto& tcp_stream = beast::get_lowest_layer(stream_);
  const auto endpoints = co_await resolve(config);
  if (!endpoints) co_return endpoints.error();
  if (closed_) co_return Error{"the connection was closed", place_of(config)};
  tcp_stream.expires_at(deadline);
  auto [connect_error, endpoint] = co_await tcp_stream.async_connect(*endpoints, as_values);
  if (connect_error) co_return Error{"cannot connect: " + text_of(connect_error), place_of(config)};
  set_options(tcp_stream.socket());

  SSL* ssl = stream_.native_handle();
  X509_VERIFY_PARAM* parameters = SSL_get0_param(ssl);
  const bool is_address = static_cast<bool>(IpAddress::parse(config.server_name));
  if (config.spiffe_server) {
    if (!is_address) SSL_set_tlsext_host_name(ssl, config.server_name.c_str());
  } else if (is_address) {
    X509_VERIFY_PARAM_set1_ip_asc(parameters, config.server_name.c_str());
  } else {
    X509_VERIFY_PARAM_set_hostflags(parameters, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    X509_VERIFY_PARAM_set1_host(parameters, config.server_name.c_str(), config.server_name.size());
    SSL_set_tlsext_host_name(ssl, config.server_name.c_str());
  }
  auto [handshake_error] = co_await stream_.async_handshake(asio::ssl::stream_base::client, as_values);
  if (handshake_error) {
    const long verified = SSL_get_verify_result(ssl);
    if (verified == X509_V_OK) co_return Error{"the TLS handshake failed: " + text_of(handshake_error), place_of(config)};
    if (config.spiffe_server) {
      co_return Error{"the server's certificate is refused: " + config.spiffe_server->refusal + "; expected an X.509-SVID of " +
                          config.spiffe_server->id.text(),
                      place_of(config)};
    }
    co_return Error{std::string("the server's certificate is refused: ") + X509_verify_cert_error_string(verified) +
                        "; expected one for \"" + config.server_name + "\" of the authority in " +
                        (config.authority.file.empty() ? config.source : config.authority.file),
                    place_of(config)};
  }
  co_return Result<void>();
}

asio::awaitable<KubeConnection::Outcome> KubeConnection::perform(const Request& message, const KubeRequest& request,
                                                                 const KubeClient::Sink* sink, Clock::time_point deadline) {
  beast::get_lowest_layer(stream_).expires_at(deadline);
  auto [ec, written] = co_await http::async_write(stream_, message, as_values);
  // A server may answer and close before it has read the whole of the request: its answer says more than our failure to write.
  auto outcome = co_await receive(request, sink);
  if (ec && !outcome.answered) outcome.response = Error{"the request could not be sent: " + text_of(ec), {}};
  if (ec) outcome.reusable = false;
  used = true;
  co_return outcome;
}

asio::awaitable<KubeConnection::Outcome> KubeConnection::receive(const KubeRequest& request, const KubeClient::Sink* sink) {
  Outcome out;
  auto& tcp_stream = beast::get_lowest_layer(stream_);
  http::response_parser<http::buffer_body> parser;
  parser.header_limit(kHeaderBytes);
  parser.body_limit(boost::none);  // counted below, where it is kept
  auto [header_error, header_bytes] = co_await http::async_read_header(stream_, buffer_, parser, as_values);
  out.answered = header_bytes > 0 || buffer_.size() > 0;
  if (header_error) {
    out.response = Error{text_of(header_error), {}};
    co_return out;
  }
  KubeResponse response;
  response.status = parser.get().result_int();
  const auto retry = parser.get()[http::field::retry_after];
  unsigned seconds = 0;
  std::from_chars(retry.data(), retry.data() + retry.size(), seconds);
  response.retry_after = std::chrono::seconds(std::min(seconds, 300U));
  const bool to_sink = sink != nullptr && response.status == 200;
  if (to_sink && !(*sink)({})) {
    out.response = std::move(response);
    co_return out;
  }
  while (!parser.is_done()) {
    if (to_sink) tcp_stream.expires_after(request.deadline);
    parser.get().body().data = piece_.data();
    parser.get().body().size = piece_.size();
    parser.get().body().more = true;
    auto [ec, bytes] = co_await http::async_read_some(stream_, buffer_, parser, as_values);
    const std::string_view piece(piece_.data(), piece_.size() - parser.get().body().size);
    if (!piece.empty() && to_sink) {
      if (!(*sink)(piece)) {
        out.response = std::move(response);
        co_return out;
      }
    } else if (!piece.empty()) {
      if (response.body.size() + piece.size() > request.body_bytes) {
        out.response = Error{"the answer is longer than " + std::to_string(request.body_bytes) + " bytes", {}};
        co_return out;
      }
      response.body += piece;
    }
    if (ec && ec != http::error::need_buffer) {
      out.response = Error{"the answer was cut off: " + text_of(ec), {}};
      co_return out;
    }
  }
  out.reusable = parser.keep_alive();
  out.response = std::move(response);
  co_return out;
}

void KubeConnection::close() {
  closed_ = true;
  beast::get_lowest_layer(stream_).close();
}

}  // namespace postern

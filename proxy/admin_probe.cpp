#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/error.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <chrono>

#include "proxy/admin_routes.hpp"

namespace postern {

namespace asio = boost::asio;
using asio::ip::tcp;

namespace {

constexpr auto probe_deadline = std::chrono::seconds{1};

std::string text_of(const tcp::endpoint& endpoint) {
  const bool v6 = endpoint.address().is_v6();
  const std::string address = endpoint.address().to_string();
  return (v6 ? "[" + address + "]" : address) + ":" + std::to_string(endpoint.port());
}

}  // namespace

asio::awaitable<HttpAnswer> probe_application(Port port) {
  constexpr auto as_values = asio::as_tuple(asio::use_awaitable);
  const auto executor = co_await asio::this_coro::executor;
  const auto deadline = std::chrono::steady_clock::now() + probe_deadline;
  const std::array<tcp::endpoint, 2> endpoints{tcp::endpoint(asio::ip::address_v4::loopback(), port.number),
                                               tcp::endpoint(asio::ip::address_v6::loopback(), port.number)};
  std::string failures;
  for (const tcp::endpoint& endpoint : endpoints) {
    boost::beast::tcp_stream stream(executor);
    stream.expires_at(deadline);
    const auto [ec] = co_await stream.async_connect(endpoint, as_values);
    if (!ec) {
      // A port of the ephemeral range that nobody listens on can be connected with itself (simultaneous open).
      boost::system::error_code unknown;
      if (stream.socket().local_endpoint(unknown) != endpoint) co_return HttpAnswer{200, {}, text_of(endpoint) + ": connected\n"};
    }
    const std::string why = ec ? ec.message() : "Connection refused";
    failures += text_of(endpoint) + ": " + why + "\n";
    if (ec == boost::beast::error::timeout) break;
  }
  co_return HttpAnswer{503, {}, failures};
}

}  // namespace postern

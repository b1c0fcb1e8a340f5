#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/error.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <chrono>
#include <string>
#include <vector>

#include "proxy/admin_routes.hpp"

namespace postern {

namespace asio = boost::asio;
using asio::ip::tcp;

namespace {

constexpr auto probe_deadline = std::chrono::seconds{1};

}  // namespace

asio::awaitable<HttpAnswer> probe_application(SocketAddress asked_at) {
  constexpr auto as_values = asio::as_tuple(asio::use_awaitable);
  const auto executor = co_await asio::this_coro::executor;
  const auto deadline = std::chrono::steady_clock::now() + probe_deadline;
  std::vector<SocketAddress> addresses{{*IpAddress::parse("127.0.0.1"), asked_at.port}, {*IpAddress::parse("::1"), asked_at.port}};
  if (!asked_at.address.is_loopback()) addresses.push_back(asked_at);
  std::string failures;
  for (const SocketAddress& address : addresses) {
    const tcp::endpoint endpoint(asio::ip::make_address(address.address.text()), address.port.number);
    boost::beast::tcp_stream stream(executor);
    stream.expires_at(deadline);
    const auto [ec] = co_await stream.async_connect(endpoint, as_values);
    if (!ec) {
      // A port of the ephemeral range that nobody listens on can be connected with itself (simultaneous open).
      boost::system::error_code unknown;
      if (stream.socket().local_endpoint(unknown) != endpoint) co_return HttpAnswer{200, {}, address.text() + ": connected\n"};
    }
    const std::string why = ec ? ec.message() : "Connection refused";
    failures += address.text() + ": " + why + "\n";
    if (ec == boost::beast::error::timeout) break;
  }
  co_return HttpAnswer{503, {}, failures};
}

}  // namespace postern

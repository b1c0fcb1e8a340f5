#include <boost/asio/as_tuple.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/error.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <chrono>
#include <string>
#include <vector>

#include "proxy/admin_routes.hpp"
#include "proxy/app_connection.hpp"

namespace postern {

namespace asio = boost::asio;

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
    const auto endpoint = endpoint_of(address);
    boost::beast::tcp_stream stream(executor);
    stream.expires_at(deadline);
    const auto [ec] = co_await stream.async_connect(endpoint, as_values);
    if (!ec && !is_connected_with_itself(stream.socket(), endpoint)) co_return HttpAnswer{200, {}, address.text() + ": connected\n"};
    const std::string why = ec ? ec.message() : "Connection refused";
    failures += address.text() + ": " + why + "\n";
    if (ec == boost::beast::error::timeout) break;
  }
  co_return HttpAnswer{503, {}, failures};
}

}  // namespace postern

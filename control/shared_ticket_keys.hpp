// SharedTicketKeys: keeps this replica's ticket keys those of all replicas: they live in one Secret, which whoever comes first makes, and
// whoever notices first renews. The API server decides who that was (409), so nothing needs a leader.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <functional>
#include <string>

#include "base/log.hpp"
#include "control/kube_client.hpp"
#include "control/ticket_key_ring.hpp"

namespace postern {

struct SharedTicketKeysSettings {
  std::string ns;
  std::string secret;
  std::chrono::seconds rotation{};
};

class SharedTicketKeys {
 public:
  // `use` is called with the keys whenever they have become others. REQUIRES: `client` and `log` outlive this; `io` is run by one thread,
  // and not after this is gone.
  SharedTicketKeys(boost::asio::io_context& io, KubeClient& client, SharedTicketKeysSettings settings, Log& log,
                   std::function<void(TicketKeys)> use);

  // Reads, makes and renews the Secret until the client is closed. Where that fails, the last keys stay, and the log says so once.
  void start();
  bool shared() const { return !ring_.empty(); }  // the keys in use are those of the Secret

 private:
  struct Stored {
    TicketKeyRing ring;  // empty: what stands there is no ring
    std::string version;
    bool exists = false;
  };
  boost::asio::awaitable<void> run();
  boost::asio::awaitable<Result<void>> look();
  boost::asio::awaitable<Result<Stored>> read();
  // False: another replica was faster.
  boost::asio::awaitable<Result<bool>> write(const TicketKeyRing& ring, const Stored& before);
  std::chrono::seconds interval() const;
  void adopt(TicketKeyRing ring);

  boost::asio::io_context& io_;
  KubeClient& client_;
  const SharedTicketKeysSettings settings_;
  Log& log_;
  std::function<void(TicketKeys)> use_;
  TicketKeyRing ring_;
  std::size_t seals_ = 0;
  std::string last_error_;
};

}  // namespace postern

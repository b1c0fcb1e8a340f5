// Federation: the trust bundles of other trust domains, for every sidecar: from files, and from bundle endpoints that are asked again and
// again (SPIFFE Federation sections 4 and 5). Sidecars never fetch. What cannot be had or read leaves the last good bundle in force.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "authz/resource.hpp"
#include "base/federated_bundle.hpp"
#include "base/log.hpp"
#include "base/result.hpp"
#include "certs/federated_files.hpp"

namespace postern {

// How long to wait for the next retrieval: what the bundle asks for (spiffe_refresh_hint, SPIFFE Trust Domain and Bundle section 4.1.2)
// within bounds, 5 minutes where it says nothing (SPIFFE Federation section 4.1).
std::chrono::seconds refresh_interval(const std::optional<std::chrono::seconds>& hint);

class Federation {
 public:
  // By the resource's name; null: configured, but not known yet. A domain that has withdrawn all of its keys, or whose file is gone, is not
  // among them.
  using Resources = std::map<std::string, ResourcePtr, std::less<>>;

  // `use` is called when they are others. Fails where a file's folder does not exist. REQUIRES: `log` outlives this; `io` is run by one
  // thread, and not after this is gone.
  static Result<std::unique_ptr<Federation>> make(boost::asio::io_context& io, std::vector<FederatedBundle> bundles, Log& log,
                                                  std::function<void(Resources)> use);
  void start();

  // Of one trust domain, for metrics.
  struct Facts {
    std::string trust_domain;
    std::size_t authorities = 0;
    std::optional<std::uint64_t> sequence;
    std::uint64_t refused = 0;        // retrievals that failed, bundles that could not be taken
    double retrieved_at_seconds = 0;  // unix time of the latest good retrieval; 0: none, or from a file
  };
  std::vector<Facts> facts() const;

 private:
  struct Endpoint {
    FederatedBundle from;
    HeldBundle held;
    bool known = false;  // it has been retrieved once
    std::uint64_t refused = 0;
    std::string fault;  // as last said
    std::chrono::system_clock::time_point retrieved_at{};
  };

  Federation(boost::asio::io_context& io, Log& log, std::function<void(Resources)> use, FederatedFiles files)
      : io_(io), log_(log), use_(std::move(use)), files_(std::move(files)) {}
  boost::asio::awaitable<void> watch_files();
  boost::asio::awaitable<void> ask_again_and_again(Endpoint& endpoint);
  boost::asio::awaitable<Result<std::string>> retrieve(const Endpoint& endpoint) const;
  Result<TrustBundleSet> bundles_for(const Endpoint& endpoint) const;
  bool take(Endpoint& endpoint, const Result<std::string>& answer);
  void read_files();
  void publish();

  boost::asio::io_context& io_;
  Log& log_;
  std::function<void(Resources)> use_;
  FederatedFiles files_;
  std::vector<std::unique_ptr<Endpoint>> endpoints_;
  std::unique_ptr<boost::asio::posix::stream_descriptor> files_fd_;
};

}  // namespace postern

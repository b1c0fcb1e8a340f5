// The iptables programs of this machine: which there are, which of them works here, and running them. Never through a shell.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/ip.hpp"
#include "base/result.hpp"
#include "proxy/redirect_rules.hpp"

namespace postern {

// One implementation (nf_tables or legacy) with its four programs.
class Iptables {
 public:
  // From the path of the iptables program: -save and -restore, and ip6tables for iptables, are beside it.
  static Result<Iptables> at(const std::string& path);
  // Those found in PATH and the usual folders: iptables-nft, iptables-legacy; iptables only where neither is.
  static std::vector<Iptables> installed();

  const std::string& name() const { return name_; }  // iptables-nft
  // What `iptables-save -t nat` prints; an error where this implementation does not work here.
  Result<std::string> save(IpFamily family) const;
  // Applies one transaction, whole or not at all.
  Result<void> restore(IpFamily family, std::string_view transaction) const;
  // False when this is the legacy implementation and no nat table of it exists here: asking it would make one.
  bool may_hold_rules(IpFamily family) const;

 private:
  std::string program(IpFamily family, std::string_view suffix) const;

  std::string folder_;
  std::string name_;
};

// Does any interface of this network namespace have an IPv6 address; one that is neither loopback's nor link-local?
struct Ipv6Use {
  bool any = false;
  bool routable = false;
};
Ipv6Use ipv6_use();

}  // namespace postern

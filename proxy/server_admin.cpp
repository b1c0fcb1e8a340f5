// What the admin thread asks of the server.
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <future>

#include "authz/topology.hpp"
#include "proxy/identity_json.hpp"
#include "proxy/server_unit.hpp"

namespace postern {

namespace {

namespace json = boost::json;

double unix_seconds(std::chrono::system_clock::time_point at) { return std::chrono::duration<double>(at.time_since_epoch()).count(); }

json::array rules_json(const AllowList& list, const AllowDirection& direction) {
  json::array rules;
  for (const AllowRule& rule : direction.rules) {
    json::array ports;
    for (const PolicyPort& port : rule.ports) ports.push_back(json::value(text_of(port)));
    json::array peers;
    for (const AllowedPeer& peer : rule.peers) {
      peers.push_back(json::object{{"namespace", peer.origin.ns},
                                   {"policy", peer.origin.policy},
                                   {"rule_index", peer.origin.rule},
                                   {"peer_index", peer.origin.peer},
                                   {"peer", text_of(list, peer)}});
    }
    rules.push_back(
        json::object{{"audit", rule.audit}, {"replaced", rule.replaced}, {"ports", std::move(ports)}, {"peers", std::move(peers)}});
  }
  return rules;
}

json::object direction_json(const AllowList& list, const AllowDirection& direction) {
  json::array isolating;
  for (const IsolatingPolicy& policy : direction.isolating) {
    isolating.push_back(
        json::object{{"namespace", policy.ns}, {"policy", policy.policy}, {"audit", policy.audit}, {"replaced", policy.replaced}});
  }
  return {{"isolated", direction.isolated(Plane::enforced)}, {"isolating", std::move(isolating)}, {"rules", rules_json(list, direction)}};
}

}  // namespace

Readiness Server::readiness() {
  if (draining_) return {false, "draining"};
  const auto id = identity();
  if (!id) return {false, "no SVID: " + (identity_facts_.error.empty() ? std::string("none configured") : identity_facts_.error)};
  if (id->svid.not_after <= std::chrono::system_clock::now()) return {false, "the SVID has expired"};
  if (!snapshot()) {
    const std::string source = policy_client_ ? ": the control plane has not been reached" : policy_source_ ? "" : ": none configured";
    const std::lock_guard lock(mutex_);
    return {false, "no policy yet" + (policy_error_.empty() ? source : ": " + policy_error_)};
  }
  return {true, ""};
}

bool Server::may_scrape(const IpAddress& source) {
  return judge(snapshot().get(),
               ConnectionFacts{Direction::inbound, source, admin_ ? admin_->health_port() : config_.listen.health, nullptr, false})
      .allowed;
}

bool Server::is_probe_port(Port port) {
  const auto current = snapshot();
  return current && std::ranges::any_of(current->self().probe_ports, [port](const ProbePort& probe) { return probe.port == port; });
}

bool Server::is_probe_path(std::string_view path) {
  const auto current = snapshot();
  return current && std::ranges::any_of(current->self().probe_ports, [path](const ProbePort& probe) { return probe.path == path; });
}

bool Server::may_probe(const IpAddress& source, Port port) {
  const auto current = snapshot();
  if (!current) return false;
  // Whatever mesh.nodeTraffic says of the node: it gets no more than the answer to what this pod's own spec asks.
  if (current->workload_at(source) == nullptr && current->is_own_node(source)) return true;
  return judge(current.get(), ConnectionFacts{Direction::inbound, source, port, nullptr, false}).allowed;
}

std::string Server::config_yaml() { return print_config(config_); }

std::string Server::connections_json() {
  json::array all;
  std::vector<std::future<std::vector<std::string>>> answers;
  for (const std::unique_ptr<Unit>& unit : units_) {
    const auto promise = std::make_shared<std::promise<std::vector<std::string>>>();
    answers.push_back(promise->get_future());
    unit->worker.post([promise, worker = &unit->worker] {
      std::vector<std::string> lines;
      worker->live.for_each([&lines](const LiveConnection& connection) { lines.push_back(connection.describe()); });
      promise->set_value(std::move(lines));
    });
  }
  for (auto& answer : answers) {
    if (answer.wait_for(std::chrono::seconds(1)) != std::future_status::ready) continue;  // a worker that is ending
    for (const std::string& line : answer.get()) all.push_back(json::parse(line));
  }
  return json::serialize(json::object{{"connections", std::move(all)}});
}

std::string Server::allow_list_json() {
  const auto current = snapshot();
  json::object out;
  {
    const std::lock_guard lock(mutex_);
    out["error"] = policy_error_;
    json::array warnings;
    for (const std::string& warning : policy_warnings_) warnings.push_back(json::value(warning));
    out["warnings"] = std::move(warnings);
  }
  if (!current) return json::serialize(out);
  const AllowList& list = current->allow_list();
  out["workload"] = current->self().ns + "/" + current->self().name;
  out["generation"] = current->generation();
  out["enforced_generation"] = enforced_generation_.load();
  out["ingress"] = direction_json(list, list.ingress);
  out["egress"] = direction_json(list, list.egress);
  json::array sets;
  for (const auto& set : list.peer_sets) {
    json::array members;
    for (const std::uint32_t member : set->members) {
      const Workload& workload = current->topology().workloads()[member];
      members.push_back(json::value(workload.ns + "/" + workload.name));
    }
    sets.push_back(json::object{{"selects", text_of(*set)}, {"members", std::move(members)}});
  }
  out["peer_sets"] = std::move(sets);
  return json::serialize(out);
}

std::string Server::identities_json() {
  const auto current = identity();
  const std::lock_guard lock(mutex_);
  return identity_json(current.get(), identity_facts_);
}

void Server::drain() {
  drain_asked_ = true;
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = write(wakeup_, &one, sizeof one);
}

void Server::set_log_level(LogLevel level) { log_.set_level(level); }

AdminBackend::Facts Server::facts() {
  Facts out;
  if (const auto id = identity()) out.svid_expiry_seconds = unix_seconds(id->svid.not_after);
  if (const auto current = snapshot()) {
    out.policy_age_seconds = unix_seconds(std::chrono::system_clock::now()) - unix_seconds(current->made_at());
    out.policy_generation = current->generation();
  }
  if (policy_client_) {
    const PolicyClient::Facts stream = policy_client_->facts();
    out.control = ControlFacts{stream.connected, stream.updates, stream.refused, stream.streams, stream.lookups};
    if (out.policy_age_seconds >= 0) out.policy_age_seconds = stream.confirmed_seconds_ago;
  }
  out.policy_rejected = policy_rejected_.load();
  out.identity_rejected = identity_rejected_.load();
  return out;
}

}  // namespace postern

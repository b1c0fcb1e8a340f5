// posternctl verdicts: what the policies say of many connections, in bulk.
#include <charconv>
#include <iostream>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "authz/compiler.hpp"
#include "base/document.hpp"
#include "cli/command.hpp"
#include "cli/connection_end.hpp"
#include "cli/manifest_files.hpp"

namespace postern::cli {
namespace {

constexpr std::string_view command_name = "verdicts";

struct Query {
  ConnectionEnd from;
  ConnectionEnd to;
  Port port;
  Protocol protocol = Protocol::tcp;
  bool egress = true;  // what no policy restricts is allowed
  bool ingress = true;
};

Result<Query> decode_query(const Document& document, const ClusterView& view, const Topology& topology) {
  if (!document.root.is(Node::Kind::mapping)) return Error{"expected an object, found " + std::string(name_of(document.root.kind)), ""};
  const auto field = [&](std::string_view name) { return document.root.find(name); };
  Query query;
  for (const auto& [name, end] : {std::pair("from", &query.from), std::pair("to", &query.to)}) {
    const Node* asked = field(name);
    if (asked == nullptr || !asked->is(Node::Kind::string)) return Error{"expected a string: namespace/pod or an IP address", name};
    auto found = find_end(asked->scalar, view, topology);
    if (!found) return Error{found.error().message, name};
    if (found->outsider && name == std::string_view("to"))
      return Error{"a SPIFFE ID says who connects; expected namespace/pod or an IP address", name};
    *end = std::move(*found);
  }
  const Node* port = field("port");
  if (port == nullptr || !port->is(Node::Kind::integer)) return Error{"expected a number from 1 to 65535", "port"};
  const auto number = parse_port(port->scalar);
  if (!number) return Error{number.error().message, "port"};
  query.port = *number;
  const Node* protocol = field("protocol");
  if (protocol != nullptr && !protocol->is(Node::Kind::string)) return Error{"expected TCP, UDP or SCTP", "protocol"};
  const auto named = parse_protocol(protocol == nullptr ? "TCP" : std::string_view(protocol->scalar));
  if (!named) return Error{named.error().message, "protocol"};
  query.protocol = *named;
  return query;
}

Result<std::vector<Query>> read_queries(const std::string& path, const ClusterView& view, const Topology& topology) {
  const auto text = read_file(path);
  if (!text) return text.error();
  std::vector<Query> queries;
  std::size_t line_number = 0;
  for (std::size_t begin = 0; begin < text->size();) {
    const std::size_t end = std::min(text->find('\n', begin), text->size());
    const std::string_view line = std::string_view(*text).substr(begin, end - begin);
    begin = end + 1;
    ++line_number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = path + ":" + std::to_string(line_number);
    const auto document = parse_json(line, where);
    if (!document) return Error{document.error().message, where};
    auto query = decode_query(*document, view, topology);
    if (!query) return Error{query.error().message, query.error().where.empty() ? where : where + ": " + query.error().where};
    queries.push_back(std::move(*query));
  }
  return queries;
}

// Asks each pod's policies once for all its queries, so that one snapshot at a time is held, however many pods there are.
Result<void> answer(std::vector<Query>& queries, Compiler& compiler, PolicyDirection direction) {
  std::map<const Workload*, std::vector<Query*>> by_pod;
  for (Query& query : queries) {
    const ConnectionEnd& self = direction == PolicyDirection::ingress ? query.to : query.from;
    if (self.pod != nullptr && query.from.pod != query.to.pod) by_pod[self.pod].push_back(&query);
  }
  for (const auto& [pod, asked] : by_pod) {
    const auto snapshot = compiler.compile({pod->ns, pod->name}, 1);
    if (!snapshot) return snapshot.error();
    for (Query* query : asked) {
      const bool in = direction == PolicyDirection::ingress;
      const auto [from, to] = addresses_of(query->from, query->to);
      const bool outsider = in && query->from.outsider.has_value();
      const Peer peer{.workload = in ? query->from.pod : query->to.pod,
                      .address = in ? from : to,
                      .outsider = outsider ? &*query->from.outsider : nullptr};
      (in ? query->ingress : query->egress) = decide(snapshot->get(), direction, peer, query->port, query->protocol).allowed();
    }
  }
  return {};
}

int run(const Arguments& arguments) {
  const auto manifests = read_manifests(*arguments.get("--manifests"));
  if (!manifests) return bad_input(command_name, manifests.error());
  // What the policies say, and nothing besides: the node's traffic is not theirs to decide.
  MeshSettings settings;
  settings.node_traffic = NodeTraffic::none;
  Compiler compiler(manifests->cluster, settings);
  auto queries = read_queries(std::string(*arguments.get("--queries")), manifests->cluster, *compiler.topology());
  if (!queries) return bad_input(command_name, queries.error());
  for (const auto direction : {PolicyDirection::egress, PolicyDirection::ingress}) {
    if (const auto answered = answer(*queries, compiler, direction); !answered) return bad_input(command_name, answered.error());
  }
  const auto word = [](bool allowed) { return allowed ? "allow" : "deny"; };
  for (const Query& query : *queries) {
    std::cout << R"({"egress":")" << word(query.egress) << R"(","ingress":")" << word(query.ingress) << R"(","verdict":")"
              << word(query.egress && query.ingress) << "\"}\n";
  }
  return std::cout.flush() ? exit_ok : exit_failed;
}

}  // namespace

Command verdicts_command() {
  return {
      .name = command_name,
      .summary = "say what the policies decide for each connection of a list",
      .description =
          "Reads manifests (Namespaces, Pods, NetworkPolicies) and queries, one JSON object a line:\n"
          "  {\"from\":\"shop/web\",\"to\":\"10.0.0.3\",\"port\":5432,\"protocol\":\"TCP\"}\n"
          "Prints one line per query, in order:\n"
          "  {\"egress\":\"allow\",\"ingress\":\"deny\",\"verdict\":\"deny\"}\n"
          "An end outside the cluster restricts nothing. Policies in audit do not count. \"from\" may be a SPIFFE ID that is no pod's,\n"
          "with its address where that matters: spiffe://partner.example/billing@203.0.113.7",
      .options = {{"--manifests", "PATH", "a YAML or JSON file, or a directory of them", true}, {"--queries", "FILE", "the queries", true}},
      .run = run};
}

}  // namespace postern::cli

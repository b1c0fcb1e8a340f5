// posternctl explain: what the policies decide for one connection, and why.
#include "authz/explain.hpp"

#include <iostream>
#include <string>

#include "authz/compiler.hpp"
#include "cli/command.hpp"
#include "cli/connection_end.hpp"
#include "cli/manifest_files.hpp"

namespace postern::cli {
namespace {

constexpr std::string_view command_name = "explain";

// One side's explanation; an end that is no pod has no policies of its own.
class Side {
 public:
  static Result<Side> of(Compiler& compiler, PolicyDirection direction, const ConnectionEnd& self, const Peer& peer, Port port,
                         Protocol protocol) {
    Side side;
    if (self.pod == nullptr) {
      side.text_ = std::string(name_of(direction)) + ": allow: " + self.asked + " is no pod, and no policy selects it";
      return side;
    }
    const auto snapshot = compiler.compile({self.pod->ns, self.pod->name}, 1);
    if (!snapshot) return snapshot.error();
    const Explanation explanation = explain(**snapshot, direction, peer, port, protocol);
    side.allowed_ = explanation.verdict.allowed();
    side.text_ = text_of(explanation);
    return side;
  }

  bool allowed() const { return allowed_; }
  const std::string& text() const { return text_; }

 private:
  bool allowed_ = true;
  std::string text_;
};

std::string described(const ConnectionEnd& end, const IpAddress& address) {
  if (end.outsider) return end.asked;
  return end.pod == nullptr ? address.text() : end.pod->ns + "/" + end.pod->name + " (" + address.text() + ")";
}

// What a Service's address stands for to the pod that connects; says so, and replaces the destination by the endpoint.
Result<void> resolve_service(Compiler& compiler, const ConnectionEnd& from, ConnectionEnd& to, Port& port) {
  if (from.pod == nullptr || to.pod != nullptr || !to.address) return {};
  const auto snapshot = compiler.compile({from.pod->ns, from.pod->name}, 1);
  if (!snapshot) return snapshot.error();
  const SocketAddress original{*to.address, port};
  const Destination destination = (*snapshot)->resolve(original, 0);
  if (destination.service.empty()) return {};
  const std::string service = original.text() + " is the Service " + std::string(destination.service);
  if (destination.kind == Destination::Kind::no_endpoint) return Error{service + ", which has no usable endpoint at that port", "--to"};
  std::cout << service << "; one of its " << destination.candidates << " endpoints is " << destination.address.text() << "\n";
  to.pod = destination.workload;
  to.address = destination.address.address;
  port = destination.address.port;
  return {};
}

int run(const Arguments& arguments) {
  const auto fail = [](const Error& error, std::string_view option) {
    return bad_input(command_name, {error.message, std::string(option)});
  };
  auto port = parse_port(*arguments.get("--port"));
  if (!port) return fail(port.error(), "--port");
  const auto protocol = parse_protocol(arguments.get("--protocol", "TCP"));
  if (!protocol) return fail(protocol.error(), "--protocol");
  const auto manifests = read_manifests(*arguments.get("--manifests"));
  if (!manifests) return bad_input(command_name, manifests.error());

  Compiler compiler(manifests->cluster, MeshSettings{});
  const auto from = find_end(*arguments.get("--from"), manifests->cluster, *compiler.topology());
  if (!from) return fail(from.error(), "--from");
  auto to = find_end(*arguments.get("--to"), manifests->cluster, *compiler.topology());
  if (!to) return fail(to.error(), "--to");
  if (to->outsider) return fail(Error{"a SPIFFE ID says who connects, not to whom; expected namespace/pod or an IP address", ""}, "--to");
  if (*protocol == Protocol::tcp) {
    if (const auto resolved = resolve_service(compiler, *from, *to, *port); !resolved) return bad_input(command_name, resolved.error());
  }

  const auto [source, destination] = addresses_of(*from, *to);
  std::cout << described(*from, source) << " -> " << described(*to, destination) << " " << name_of(*protocol) << " " << port->number
            << ": ";
  if (from->pod != nullptr && from->pod == to->pod) {
    std::cout << "allow\na pod cannot block itself\n";
    return exit_ok;
  }
  const auto egress = Side::of(compiler, PolicyDirection::egress, *from, {.workload = to->pod, .address = destination}, *port, *protocol);
  if (!egress) return bad_input(command_name, egress.error());
  const auto ingress =
      Side::of(compiler, PolicyDirection::ingress, *to,
               {.workload = from->pod, .address = source, .outsider = from->outsider ? &*from->outsider : nullptr}, *port, *protocol);
  if (!ingress) return bad_input(command_name, ingress.error());
  std::cout << (egress->allowed() && ingress->allowed() ? "allow" : "deny") << "\n" << egress->text() << "\n" << ingress->text() << "\n";
  if (*protocol != Protocol::tcp) std::cout << "The proxy carries TCP only: it does not enforce rules for " << name_of(*protocol) << ".\n";
  return exit_ok;
}

}  // namespace

Command explain_command() {
  return {.name = command_name,
          .summary = "say whether a connection is allowed, and by which rules",
          .description =
              "Prints the verdict of both ends for one connection, the policies that isolate each end, and every rule that was\n"
              "looked at. The destination may also be an address of a Service.",
          .options = {{"--manifests", "PATH", "a YAML or JSON file, or a directory of them", true},
                      {"--from", "END", "who connects: namespace/pod, an IP address, or a SPIFFE ID that is no pod's (ID[@ADDRESS])", true},
                      {"--to", "END", "to whom: namespace/pod, or an IP address", true},
                      {"--port", "N", "the destination port", true},
                      {"--protocol", "NAME", "TCP (the default), UDP or SCTP"}},
          .run = run};
}

}  // namespace postern::cli

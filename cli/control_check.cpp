#include "cli/control_check.hpp"

#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <system_error>

#include "base/descriptor.hpp"

namespace postern::cli {
namespace {

// An errno; 0: connected.
int connect_within(const addrinfo& to, int patience_ms) {
  const Descriptor socket(::socket(to.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (socket.get() < 0) return errno;
  if (::connect(socket.get(), to.ai_addr, to.ai_addrlen) == 0) return 0;
  if (errno != EINPROGRESS) return errno;
  pollfd waiting{.fd = socket.get(), .events = POLLOUT, .revents = 0};
  const int ready = ::poll(&waiting, 1, patience_ms);
  if (ready == 0) return ETIMEDOUT;
  if (ready < 0) return errno;
  int error = 0;
  socklen_t size = sizeof error;
  return ::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

Reach reach_of(int error) {
  if (error == 0) return Reach::reachable;
  if (error == ETIMEDOUT) return Reach::unanswered;
  return error == ECONNREFUSED ? Reach::refused : Reach::unreachable;
}

std::string indented(const std::string& text, std::string_view by) {
  std::string out;
  for (std::size_t begin = 0; begin < text.size();) {
    const auto end = std::min(text.find('\n', begin), text.size() - 1) + 1;
    out.append(by).append(text, begin, end - begin);
    begin = end;
  }
  return out;
}

// As the sidecar's own log says it (proxy/policy_client.cpp), with the object to add.
std::string policy_to_add(const std::string& port) {
  return "  The likely cause: a network plugin that enforces the same NetworkPolicies knows nothing of the sidecar, and a policy that "
         "isolates this\n"
         "  pod for egress cuts its sidecar off from the control plane. Add to the pod's namespace, with the podSelector of the policy "
         "that\n"
         "  isolates it (a wider one would isolate other pods):\n"
         "\n" +
         indented(egress_policy({}, "postern-system", {port}), "    ") +
         "\n"
         "  Until then the sidecar enforces its last good policy, or refuses everything where it has none.\n";
}

std::string described(const ReachReport& report) {
  switch (report.reach) {
    case Reach::reachable: return "reachable";
    case Reach::unanswered: return "no answer: something drops the packets";
    case Reach::refused: return "nobody listens there: is postern-control running, and is this its listen.stream?";
    case Reach::unreachable: return report.detail;
    case Reach::unresolved: return "its name cannot be resolved: " + report.detail + "; is the cluster's DNS allowed as egress?";
  }
  return {};
}

}  // namespace

std::string egress_policy(const std::string& ns, const std::string& mesh_namespace, const std::vector<std::string>& ports) {
  std::string list;
  for (const std::string& port : ports) list += (list.empty() ? "" : ", ") + ("{protocol: TCP, port: " + port + "}");
  return "apiVersion: networking.k8s.io/v1\n"
         "kind: NetworkPolicy\n"
         "metadata:\n"
         "  name: postern-sidecar\n" +
         (ns.empty() ? "" : "  namespace: " + ns + "\n") +
         "spec:\n"
         "  podSelector: {}  # as in the policy that isolates the pod\n"
         "  policyTypes: [Egress]\n"
         "  egress:\n"
         "  - to:\n"
         "    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: " +
         mesh_namespace +
         "}}\n"
         "    ports: [" +
         list +
         "]\n"
         "  - to:\n"
         "    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}\n"
         "    ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]\n";
}

ReachReport try_to_reach(const std::string& address, int patience_ms) {
  ReachReport report{.address = address, .reach = Reach::unresolved, .detail = {}};
  const auto colon = address.rfind(':');
  if (colon == std::string::npos || colon == 0) {
    report.detail = "expected HOST:PORT";
    return report;
  }
  std::string host = address.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int error = ::getaddrinfo(host.c_str(), address.substr(colon + 1).c_str(), &hints, &found); error != 0) {
    report.detail = ::gai_strerror(error);
    return report;
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owned(found, ::freeaddrinfo);
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    const int error = connect_within(*one, patience_ms);
    if (reach_of(error) >= report.reach) continue;
    report.reach = reach_of(error);
    report.detail = error == 0 ? std::string() : std::generic_category().message(error);
  }
  return report;
}

bool any_reachable(const std::vector<ReachReport>& reports) {
  return std::any_of(reports.begin(), reports.end(), [](const ReachReport& report) { return report.reach == Reach::reachable; });
}

std::string reach_text(const std::vector<ReachReport>& reports) {
  std::string text;
  std::string cut_off_port;
  for (const ReachReport& report : reports) {
    text += report.address + ": " + described(report) + "\n";
    const bool cut_off = report.reach == Reach::unanswered || report.reach == Reach::unresolved;
    if (cut_off && report.detail != "expected HOST:PORT") cut_off_port = report.address.substr(report.address.rfind(':') + 1);
  }
  if (!any_reachable(reports) && !cut_off_port.empty()) text += policy_to_add(cut_off_port);
  return text;
}

}  // namespace postern::cli

#include "proxy/admin.hpp"

#include <optional>
#include <utility>

#include "base/http_service.hpp"
#include "base/listening_socket.hpp"
#include "proxy/admin_routes.hpp"

namespace postern {

// Two services: what the admin socket asks for may take the workers a second to gather, and a probe must not wait for it.
struct AdminServer::State {
  explicit State(AdminSources all) : sources(std::move(all)), http_probes(sources.log) {}

  AdminSources sources;
  HttpProbes http_probes;  // of the health port's thread
  Port health_port;
  std::optional<SocketFile> socket_file;
  std::unique_ptr<HttpService> health;
  std::unique_ptr<HttpService> admin;
};

AdminServer::AdminServer(std::unique_ptr<State> state) : state_(std::move(state)) {}
AdminServer::~AdminServer() = default;

Port AdminServer::health_port() const { return state_->health_port; }

Result<std::unique_ptr<AdminServer>> AdminServer::start(const Config& config, AdminBackend& backend,
                                                        std::vector<const WorkerCounters*> counters, Log& log) {
  auto state = std::make_unique<State>(AdminSources{backend, std::move(counters), log});
  const AdminSources& sources = state->sources;

  auto health_socket = listen_on_port(config.listen.health, "listen.health");
  if (!health_socket) return health_socket.error();
  state->health_port = health_socket->port();
  if (!config.listen.admin_socket.empty()) {
    auto admin_socket = listen_on_path(config.listen.admin_socket, "listen.adminSocket");
    if (!admin_socket) return admin_socket.error();
    state->socket_file.emplace(config.listen.admin_socket);
    auto admin = [&sources](HttpRequest request) -> boost::asio::awaitable<HttpAnswer> { co_return answer_admin(sources, request); };
    state->admin = std::make_unique<HttpService>("postern-admin", *std::move(admin_socket), admin, log);
  }
  auto health = [&sources, &probes = state->http_probes](HttpRequest request) {
    return answer_health(sources, probes, std::move(request));
  };
  state->health = std::make_unique<HttpService>("postern-health", *std::move(health_socket), health, log);
  return std::unique_ptr<AdminServer>(new AdminServer(std::move(state)));
}

}  // namespace postern

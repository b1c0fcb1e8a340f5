#include "control/admin.hpp"

#include <algorithm>
#include <array>
#include <boost/asio/awaitable.hpp>
#include <utility>

#include "base/config_values.hpp"
#include "base/document.hpp"
#include "base/http_service.hpp"
#include "base/listening_socket.hpp"

namespace postern {
namespace {

constexpr std::string_view json_type = "application/json";
constexpr std::string_view metrics_type = "text/plain; version=0.0.4; charset=utf-8";

HttpAnswer text(unsigned status, std::string body) { return {status, {}, std::move(body)}; }
HttpAnswer json(unsigned status, std::string body) { return {status, std::string(json_type), std::move(body)}; }
HttpAnswer json_error(unsigned status, std::string_view message) {
  std::string body = "{\"error\":";
  append_json_string(body, message);
  return json(status, body + "}");
}

// What the control thread could not say in time is an error of its own.
HttpAnswer from(std::optional<std::string> body, std::string_view type) {
  if (!body) return json_error(503, "the control thread did not answer within a second");
  return {200, std::string(type), *std::move(body)};
}

// The value of a field of the query; names of objects need no escapes.
std::string_view query_value(std::string_view query, std::string_view field) {
  while (!query.empty()) {
    const std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(pair.size() + 1, query.size()));
    if (pair.starts_with(field) && pair.size() > field.size() && pair[field.size()] == '=') return pair.substr(field.size() + 1);
  }
  return {};
}

struct Sources {
  ControlAdminBackend& backend;
  Log& log;
};

HttpAnswer policies(const Sources& s, const HttpRequest& request) {
  return from(s.backend.policies_json(query_value(request.query, "namespace"), query_value(request.query, "name")), json_type);
}

HttpAnswer readiness(const Sources& s, const HttpRequest&) {
  const std::string why = s.backend.not_ready();
  return why.empty() ? text(200, "ready\n") : text(503, "not ready: " + why + "\n");
}

HttpAnswer log_level(const Sources& s, const HttpRequest& request) {
  constexpr std::string_view expected = "expected {\"level\": \"debug\"}, the level being one of debug, info, warning, error";
  const auto document = parse_json(request.body, "body", {.bytes = 4096, .nodes = 16, .depth = 2, .documents = 1, .scalar_bytes = 64});
  const Node* level = document ? document->root.find("level") : nullptr;
  if (level == nullptr || document->root.fields.size() != 1) return json_error(400, expected);
  const auto value = config_value::Choice<config_value::log_levels>::read(*level);
  if (!value) return json_error(400, expected);
  s.log.set_level(*value);
  s.log.info("log_level_changed", {{"level", name_of(*value)}});
  return json(200, "{\"level\":\"" + std::string(name_of(*value)) + "\"}");
}

HttpAnswer authority(const Sources& s, const HttpRequest&) {
  auto body = s.backend.authority_json();
  if (body && body->empty()) return json_error(404, "this control plane has no authority: authority.enabled is false");
  return from(std::move(body), json_type);
}

HttpAnswer rotate(const Sources& s, const HttpRequest&) {
  const auto why_not = s.backend.rotate_authority();
  if (!why_not) return from(why_not, json_type);
  return why_not->empty() ? json(202, "{}") : json_error(409, *why_not);
}

struct Route {
  std::string_view method;
  std::string_view path;
  bool on_health_port;  // anybody may reach it: what is read there, a sidecar's neighbours could see
  HttpAnswer (*answer)(const Sources& sources, const HttpRequest& request);
};

constexpr std::array routes{
    Route{"GET", "/healthz", true, [](const Sources&, const HttpRequest&) { return text(200, "ok\n"); }},
    Route{"GET", "/readyz", true, readiness},
    Route{"GET", "/metrics", true, [](const Sources& s, const HttpRequest&) { return from(s.backend.metrics(), metrics_type); }},
    Route{"GET", "/policies", true, policies},
    Route{"GET", "/ca", true, authority},
    Route{"POST", "/ca/rotate", false, rotate},
    Route{"GET", "/streams", true, [](const Sources& s, const HttpRequest&) { return from(s.backend.streams_json(), json_type); }},
    Route{"GET", "/unconnected", true, [](const Sources& s, const HttpRequest&) { return from(s.backend.unconnected_json(), json_type); }},
    Route{"GET", "/config", false,
          [](const Sources& s, const HttpRequest&) {
            return HttpAnswer{200, "application/yaml", s.backend.config_yaml()};
          }},
    Route{"PUT", "/log-level", false, log_level},
};

HttpAnswer answer(const Sources& sources, const HttpRequest& request, bool health_port) {
  std::string_view other_method;
  std::string paths;
  for (const Route& route : routes) {
    if (health_port && !route.on_health_port) continue;
    if (route.path == request.path) {
      if (route.method == request.method) return route.answer(sources, request);
      other_method = route.method;
    }
    paths.append(paths.empty() ? "" : ", ").append(route.method).append(" ").append(route.path);
  }
  if (!other_method.empty()) return json_error(405, "expected " + std::string(other_method) + " " + request.path);
  return json_error(404, "no such path; expected one of " + paths);
}

}  // namespace

struct ControlAdmin::State {
  State(ControlAdminBackend& backend, Log& log) : sources{backend, log} {}

  Sources sources;
  Port health_port;
  std::optional<SocketFile> socket_file;
  std::unique_ptr<HttpService> health;
  std::unique_ptr<HttpService> admin;
};

ControlAdmin::ControlAdmin(std::unique_ptr<State> state) : state_(std::move(state)) {}
ControlAdmin::~ControlAdmin() = default;

Port ControlAdmin::health_port() const { return state_->health_port; }

Result<std::unique_ptr<ControlAdmin>> ControlAdmin::start(const ControlConfig& config, ControlAdminBackend& backend, Log& log) {
  auto state = std::make_unique<State>(backend, log);
  const Sources& sources = state->sources;
  auto health_socket = listen_on_port(config.listen.health, "listen.health");
  if (!health_socket) return health_socket.error();
  state->health_port = health_socket->port();
  if (!config.listen.admin_socket.empty()) {
    auto admin_socket = listen_on_path(config.listen.admin_socket, "listen.adminSocket");
    if (!admin_socket) return admin_socket.error();
    state->socket_file.emplace(config.listen.admin_socket);
    const auto serve = [&sources](HttpRequest request) -> boost::asio::awaitable<HttpAnswer> { co_return answer(sources, request, false); };
    state->admin = std::make_unique<HttpService>("control-admin", *std::move(admin_socket), serve, log);
  }
  const auto serve = [&sources](HttpRequest request) -> boost::asio::awaitable<HttpAnswer> { co_return answer(sources, request, true); };
  state->health = std::make_unique<HttpService>("control-health", *std::move(health_socket), serve, log);
  return std::unique_ptr<ControlAdmin>(new ControlAdmin(std::move(state)));
}

}  // namespace postern

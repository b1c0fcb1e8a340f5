#include "proxy/admin_routes.hpp"

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "authz/app_probe.hpp"
#include "base/document.hpp"
#include "proxy/metrics.hpp"

namespace postern {
namespace {

constexpr std::string_view json_type = "application/json";
constexpr std::string_view metrics_type = "text/plain; version=0.0.4; charset=utf-8";
constexpr std::array log_levels{LogLevel::debug, LogLevel::info, LogLevel::warning, LogLevel::error};

HttpAnswer text(unsigned status, std::string body) { return {status, {}, std::move(body)}; }
HttpAnswer json(unsigned status, std::string body) { return {status, std::string(json_type), std::move(body)}; }

std::string json_string(std::string_view value) {
  std::string out;
  append_json_string(out, value);
  return out;
}
HttpAnswer json_error(unsigned status, std::string_view message) { return json(status, "{\"error\":" + json_string(message) + "}"); }

HttpAnswer metrics(const AdminSources& sources) {
  return {200, std::string(metrics_type), render_metrics(sources.counters, sources.backend.facts())};
}

HttpAnswer set_log_level(const AdminSources& sources, const std::string& body) {
  constexpr std::string_view expected = "expected {\"level\": \"debug\"}, the level being one of debug, info, warning, error";
  const auto document = parse_json(body, "body", {.bytes = 4096, .nodes = 16, .depth = 2, .documents = 1, .scalar_bytes = 64});
  if (!document) return json_error(400, document.error().text() + "; " + std::string(expected));
  const Node* level = document->root.find("level");
  if (level == nullptr || document->root.fields.size() != 1) return json_error(400, expected);
  for (const LogLevel candidate : log_levels) {
    if (!level->is(Node::Kind::string) || level->scalar != name_of(candidate)) continue;
    sources.backend.set_log_level(candidate);
    sources.log.info("log_level_changed", {{"level", name_of(candidate)}});
    return json(200, "{\"level\":" + json_string(name_of(candidate)) + "}");
  }
  return json_error(400, expected);
}

HttpAnswer drain(const AdminSources& sources) {
  sources.log.info("drain_requested", {{"by", "admin"}});
  sources.backend.drain();
  return json(200, "{\"draining\":true}");
}

HttpAnswer admin_readyz(const AdminSources& sources) {
  const Readiness readiness = sources.backend.readiness();
  return json(readiness.ready ? 200 : 503,
              std::string("{\"ready\":") + (readiness.ready ? "true" : "false") + ",\"why\":" + json_string(readiness.why) + "}");
}

struct AdminRoute {
  std::string_view method;
  std::string_view path;
  HttpAnswer (*answer)(const AdminSources& sources, const HttpRequest& request);
};

constexpr std::array admin_routes{
    AdminRoute{"GET", "/config",
               [](const AdminSources& s, const HttpRequest&) {
                 return HttpAnswer{200, "application/yaml", s.backend.config_yaml()};
               }},
    AdminRoute{"GET", "/connections", [](const AdminSources& s, const HttpRequest&) { return json(200, s.backend.connections_json()); }},
    AdminRoute{"GET", "/allow-list", [](const AdminSources& s, const HttpRequest&) { return json(200, s.backend.allow_list_json()); }},
    AdminRoute{"GET", "/identities", [](const AdminSources& s, const HttpRequest&) { return json(200, s.backend.identities_json()); }},
    AdminRoute{"GET", "/readyz", [](const AdminSources& s, const HttpRequest&) { return admin_readyz(s); }},
    AdminRoute{"GET", "/metrics", [](const AdminSources& s, const HttpRequest&) { return metrics(s); }},
    AdminRoute{"POST", "/drain", [](const AdminSources& s, const HttpRequest&) { return drain(s); }},
    AdminRoute{"PUT", "/log-level", [](const AdminSources& s, const HttpRequest& r) { return set_log_level(s, r.body); }},
};

}  // namespace

boost::asio::awaitable<HttpAnswer> answer_health(const AdminSources& sources, HttpProbes& probes, HttpRequest request) {
  if (request.method != "GET") co_return text(404, "not found\n");
  if (request.path == "/healthz") co_return text(200, "ok\n");
  if (request.path == "/readyz") {
    const Readiness readiness = sources.backend.readiness();
    if (readiness.ready) co_return text(200, "ready\n");
    co_return text(503, "not ready: " + readiness.why + "\n");
  }
  if (request.path == "/metrics") {
    const bool allowed = request.source.is_loopback() || sources.backend.may_scrape(request.source);
    if (allowed) co_return metrics(sources);
    co_return text(403, "forbidden: this pod's policies do not let " + request.source.text() + " reach its health port\n");
  }
  const auto probe = parse_app_probe(request.target);
  if (!probe) co_return text(404, "not found\n");
  if (probe->scheme == AppProbe::Scheme::tcp) {
    if (sources.backend.is_probe_port(probe->port)) co_return co_await probe_application({request.local.address, probe->port});
    co_return text(404, "not found\n");
  }
  // Before the path is looked at, which would say what there is.
  if (!request.source.is_loopback() && !sources.backend.may_probe(request.source, probe->port))
    co_return text(403, "forbidden: probes are for this pod's node, and for whom its policies let reach the application's port\n");
  if (!sources.backend.is_probe_path(request.target)) co_return text(404, "not found\n");
  co_return co_await probes.ask(*probe, std::move(request));
}

HttpAnswer answer_admin(const AdminSources& sources, const HttpRequest& request) {
  std::string_view other_method;
  for (const AdminRoute& route : admin_routes) {
    if (route.path != request.path) continue;
    if (route.method == request.method) return route.answer(sources, request);
    other_method = route.method;
  }
  if (!other_method.empty()) return json_error(405, "expected " + std::string(other_method) + " " + request.path);
  std::string paths;
  for (const AdminRoute& route : admin_routes) {
    paths.append(paths.empty() ? "" : ", ").append(route.method).append(" ").append(route.path);
  }
  return json_error(404, "no such path; expected one of " + paths);
}

}  // namespace postern

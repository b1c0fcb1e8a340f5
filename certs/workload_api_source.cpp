#include "certs/workload_api_source.hpp"

#include <dlfcn.h>
#include <sys/un.h>

#include <algorithm>
#include <filesystem>

namespace postern {
namespace {

constexpr const char* socket_field = "identity.workloadApi.socket";

Error no_module(const std::string& path, const std::string& why) {
  return Error{"cannot load " + path + ": " + why + "; identity.workloadApi needs it, beside postern-proxy and of the same build", ""};
}

// Never unloaded: gRPC has threads of its own.
Result<MakeWorkloadApiClient> load_module() {
  std::error_code failed;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", failed);
  if (failed) return Error{"cannot find the folder of this program: " + failed.message(), "/proc/self/exe"};
  const std::string path = program.parent_path() / workload_api_module;
  void* const module = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (module == nullptr) return no_module(path, dlerror());
  const auto* version = static_cast<const char*>(dlsym(module, workload_api_version));
  auto* const entry = dlsym(module, workload_api_entry);
  if (version == nullptr || entry == nullptr) return no_module(path, "it is no module of Postern");
  if (std::string_view(version) != POSTERN_VERSION) return no_module(path, "it is of version " + std::string(version));
  return reinterpret_cast<MakeWorkloadApiClient>(entry);
}

bool is_same(const X509Context& a, const X509Context& b) {
  const auto same = [](const X509Ptr& one, const X509Ptr& other) { return X509_cmp(one.get(), other.get()) == 0; };
  return std::equal(a.svid.chain.begin(), a.svid.chain.end(), b.svid.chain.begin(), b.svid.chain.end(), same) &&
         a.bundles.hash() == b.bundles.hash();
}

}  // namespace

Result<std::string> workload_api_socket(std::string_view endpoint) {
  constexpr std::string_view example = "expected the URI of a unix socket, such as unix:///run/spire/agent.sock";
  if (endpoint.starts_with("tcp:"))
    return Error{"a Workload API over TCP is not supported: a sidecar shares its addresses with its pod; " + std::string(example), ""};
  if (!endpoint.starts_with("unix:")) return Error{std::string(example), ""};
  std::string_view path = endpoint.substr(5);
  if (path.starts_with("//")) path.remove_prefix(2);  // an authority, which must be empty
  if (!path.starts_with("/") || path.find_first_of("?#%") != std::string_view::npos)
    return Error{std::string(example) + "; without authority, query or fragment", ""};
  if (path.size() >= sizeof(sockaddr_un::sun_path))
    return Error{"the path has " + std::to_string(path.size()) + " bytes; that of a unix socket has at most 107", ""};
  return std::string(path);
}

Result<std::unique_ptr<WorkloadApiSource>> WorkloadApiSource::make(const std::string& endpoint, SvidChoice choice) {
  const auto path = workload_api_socket(endpoint);
  if (!path) return Error{path.error().message, socket_field};
  const auto entry = load_module();
  if (!entry) return entry.error();
  std::unique_ptr<WorkloadApiClient> client((*entry)(("unix:" + *path).c_str()));
  if (!client) return Error{"cannot start the client of the Workload API: out of descriptors or threads", socket_field};
  return std::unique_ptr<WorkloadApiSource>(new WorkloadApiSource(std::move(client), endpoint, std::move(choice)));
}

WorkloadApiSource::~WorkloadApiSource() = default;

// What is as it was is no change: an answer comes again, complete, when another SVID of the caller's has changed.
std::optional<Result<X509ContextPtr>> WorkloadApiSource::adopt(const WorkloadUpdate& update) {
  auto context = context_of(update, choice_, std::chrono::system_clock::now());
  if (!context) {
    if (context.error().text() == last_refusal_) return std::nullopt;
    last_refusal_ = context.error().text();
    return context;
  }
  const bool recovered = !std::exchange(last_refusal_, {}).empty();
  if (!recovered && current_ && is_same(*current_, **context)) return std::nullopt;
  current_ = *context;
  return context;
}

std::optional<Result<X509ContextPtr>> WorkloadApiSource::poll() {
  WorkloadEvents events = client_->take();
  std::optional<Result<X509ContextPtr>> outcome;
  if (events.update) {
    last_failure_.clear();
    outcome = adopt(*events.update);
  }
  if (events.failure.empty() || events.failure == last_failure_) return outcome;
  last_failure_ = events.failure;  // said once, not at every attempt
  const std::string what = "Workload API at " + endpoint_ + ": " + events.failure +
                           (events.gave_up ? "; not tried again, as no retry mends this" : "; trying again");
  // Without an SVID this is why there is none; with one, nothing has changed yet.
  if (!current_ && !outcome) return Result<X509ContextPtr>(Error{what, ""});
  warnings_.push_back(what);
  return outcome;
}

}  // namespace postern

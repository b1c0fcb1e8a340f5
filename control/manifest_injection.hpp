// Injection into the manifests of workloads, offline: what carries a pod template gets its sidecar there.
#pragma once

#include <string>
#include <vector>

#include "base/document.hpp"
#include "base/result.hpp"
#include "control/injection_settings.hpp"

namespace postern {

// What became of one pod or template.
struct ManifestInjection {
  std::string object;   // "Deployment shop/web"
  std::string outcome;  // "injected", "left alone: host_network"
  std::vector<std::string> warnings;
};

// Injects into a Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob or List of such; any other object
// stays as it is. An Error where a pod is denied: nothing of it may be used. Errors name source:line and the object.
Result<void> inject_manifest(Document& document, const InjectionSettings& settings, std::vector<ManifestInjection>& done);

}  // namespace postern

#include "control/pod_security.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>

#include "base/document_writer.hpp"
#include "control/sidecar_spec.hpp"

namespace postern {
namespace {

constexpr std::array<std::string_view, 5> forbidden_capabilities{"NET_ADMIN", "NET_RAW", "SYS_ADMIN", "SYS_PTRACE", "ALL"};

const Node* at(const Node* node, std::string_view key) { return node == nullptr ? nullptr : node->find(key); }
bool is_true(const Node* node) { return node != nullptr && node->is(Node::Kind::boolean) && node->boolean; }
std::string text_of(const Node* node) { return node == nullptr ? std::string() : node->scalar; }

// Container runtimes take NET_RAW, net_raw and CAP_NET_RAW alike.
std::string capability_name(const Node& item) {
  std::string out = item.scalar.substr(0, 64);
  std::transform(out.begin(), out.end(), out.begin(), [](unsigned char c) { return static_cast<char>(c >= 'a' && c <= 'z' ? c - 32 : c); });
  return out.starts_with("CAP_") ? out.substr(4) : out;
}

bool lists(const Node* capabilities, std::string_view which, std::string_view name) {
  const Node* list = at(capabilities, which);
  return list != nullptr &&
         std::any_of(list->items.begin(), list->items.end(), [&](const Node& item) { return capability_name(item) == name; });
}

bool is_integer(const Node* node, std::uint32_t value) {
  return node != nullptr && node->is(Node::Kind::integer) && node->integer == value;
}

// A field of the container's security context, else of the pod's.
const Node* effective(const Node* of_container, const Node* of_pod, std::string_view key) {
  const Node* own = at(of_container, key);
  return own != nullptr && !own->is(Node::Kind::null) ? own : at(of_pod, key);
}

bool may_be_root_with_setuid(const Node* context, const Node* of_pod) {
  if (is_true(at(context, "privileged"))) return true;
  const Node* user = effective(context, of_pod, "runAsUser");
  if (user != nullptr && user->is(Node::Kind::integer) && user->integer != 0) return false;
  if (user == nullptr && is_true(effective(context, of_pod, "runAsNonRoot"))) return false;
  const Node* capabilities = at(context, "capabilities");
  if (lists(capabilities, "add", "SETUID") || lists(capabilities, "add", "ALL")) return true;
  return !lists(capabilities, "drop", "SETUID") && !lists(capabilities, "drop", "ALL");
}

void judge_container(const Node& container, const Node* of_pod, std::uint32_t uid, PodSecurity& out) {
  const std::string name = "container " + text_of(container.find("name"));
  const Node* context = container.find("securityContext");
  const Node* capabilities = at(context, "capabilities");
  for (const std::string_view capability : forbidden_capabilities) {
    if (lists(capabilities, "add", capability)) {
      out.escapes.push_back(name + " adds the capability " + std::string(capability) + "; remove it from securityContext.capabilities.add");
    }
  }
  if (is_true(at(context, "privileged"))) out.escapes.push_back(name + " is privileged; remove securityContext.privileged");
  for (const std::string_view key : {"runAsUser", "runAsGroup"}) {
    if (!is_integer(effective(context, of_pod, key), uid)) continue;
    out.escapes.push_back(name + " has " + std::string(key) + " " + std::to_string(uid) + ", which is the sidecar's; use another");
  }
  const std::string target = text_of(container.find("targetContainerName"));
  if (target == sidecar_container) out.escapes.push_back(name + " targets the sidecar's process namespace; target another container");
  if (may_be_root_with_setuid(context, of_pod)) out.bypassable.push_back(text_of(container.find("name")));
}

void judge_pod(const Node& spec, std::uint32_t uid, PodSecurity& out) {
  const Node* context = spec.find("securityContext");
  for (const std::string_view key : {"shareProcessNamespace", "hostPID"}) {
    if (is_true(spec.find(key)))
      out.escapes.push_back("spec." + std::string(key) + " lets containers see the sidecar's process; remove it");
  }
  if (is_integer(at(context, "fsGroup"), uid)) {
    out.escapes.push_back("spec.securityContext.fsGroup is " + std::to_string(uid) + ", which is the sidecar's; use another");
  }
  const Node* groups = at(context, "supplementalGroups");
  if (groups != nullptr &&
      std::any_of(groups->items.begin(), groups->items.end(), [&](const Node& item) { return is_integer(&item, uid); })) {
    out.escapes.push_back("spec.securityContext.supplementalGroups names " + std::to_string(uid) + ", which is the sidecar's; remove it");
  }
}

}  // namespace

PodSecurity judge_pod_security(const Node& spec, std::uint32_t uid) {
  PodSecurity out;
  judge_pod(spec, uid, out);
  for (const std::string_view list : {"initContainers", "containers", "ephemeralContainers"}) {
    const Node* containers = spec.find(list);
    if (containers == nullptr) continue;
    for (const Node& container : containers->items) {
      const std::string name = text_of(container.find("name"));
      const bool is_ours = list == "initContainers" && (name == redirect_container || name == sidecar_container);
      if (!is_ours) judge_container(container, spec.find("securityContext"), uid, out);
    }
  }
  return out;
}

void drop_net_raw(Node& container) {
  const Node* capabilities = at(container.find("securityContext"), "capabilities");
  for (const std::string_view name : {"NET_RAW", "ALL"}) {
    if (lists(capabilities, "add", name) || lists(capabilities, "drop", name)) return;
  }
  Node& drop = field_of(field_of(field_of(container, "securityContext"), "capabilities"), "drop");
  drop.kind = Node::Kind::sequence;
  drop.items.push_back(make_text("NET_RAW"));
}

}  // namespace postern

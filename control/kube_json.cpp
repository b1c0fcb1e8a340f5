// parse_object(): as parse_json(), but in one go and without what nobody reads. A list of 10,000 pods is some 80 MB of JSON, most of it
// that.
#include <algorithm>
#include <array>
#include <boost/json/basic_parser_impl.hpp>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "base/document_builder.hpp"
#include "control/kube_objects.hpp"
#include "control/watch_decoder.hpp"

namespace postern {
namespace {

using boost::json::error_code;
using boost::json::string_view;

// Paths of fields; a list's index is no part of one. Nothing of a policy's spec is here: an unknown field there is refused.
constexpr std::array<std::string_view, 3> kUnreadMetadata = {"metadata.managedFields", "metadata.ownerReferences",
                                                             "metadata.annotations.kubectl.kubernetes.io/last-applied-configuration"};
constexpr std::array<std::string_view, 22> kUnreadOfPods = {"spec.volumes",
                                                            "spec.affinity",
                                                            "spec.tolerations",
                                                            "spec.securityContext",
                                                            "spec.ephemeralContainers",
                                                            "spec.containers.args",
                                                            "spec.containers.command",
                                                            "spec.containers.env",
                                                            "spec.containers.envFrom",
                                                            "spec.containers.resources",
                                                            "spec.containers.securityContext",
                                                            "spec.containers.volumeMounts",
                                                            "spec.initContainers.args",
                                                            "spec.initContainers.command",
                                                            "spec.initContainers.env",
                                                            "spec.initContainers.envFrom",
                                                            "spec.initContainers.resources",
                                                            "spec.initContainers.securityContext",
                                                            "spec.initContainers.volumeMounts",
                                                            "status.containerStatuses",
                                                            "status.initContainerStatuses",
                                                            "status.ephemeralContainerStatuses"};
constexpr std::array<std::string_view, 4> kUnreadOfNodes = {"status.images", "status.conditions", "status.nodeInfo",
                                                            "status.volumesAttached"};

std::span<const std::string_view> unread_of(WatchedKind kind) {
  switch (kind) {
    case WatchedKind::pods: return kUnreadOfPods;
    case WatchedKind::nodes: return kUnreadOfNodes;
    case WatchedKind::namespaces:
    case WatchedKind::network_policies:
    case WatchedKind::services:
    case WatchedKind::endpoint_slices:
    case WatchedKind::mesh_config: break;
  }
  return {};
}

// Feeds the builder with the events of one JSON text; the members are those that boost::json::basic_parser asks for.
class Events {
 public:
  static constexpr std::size_t max_object_size = std::numeric_limits<std::size_t>::max();
  static constexpr std::size_t max_array_size = std::numeric_limits<std::size_t>::max();
  static constexpr std::size_t max_string_size = std::numeric_limits<std::size_t>::max();
  static constexpr std::size_t max_key_size = std::numeric_limits<std::size_t>::max();

  Events(DocumentBuilder& builder, std::span<const std::string_view> unread) : builder_(builder), unread_(unread) {}

  bool on_document_begin(error_code&) { return true; }
  bool on_document_end(error_code&) { return true; }
  bool on_object_begin(error_code& ec) { return begin(Node::Kind::mapping, ec); }
  bool on_array_begin(error_code& ec) { return begin(Node::Kind::sequence, ec); }
  bool on_object_end(std::size_t, error_code& ec) { return end(ec); }
  bool on_array_end(std::size_t, error_code& ec) { return end(ec); }
  bool on_string_part(string_view s, std::size_t, error_code&) { return keep(s); }
  bool on_key_part(string_view s, std::size_t, error_code&) { return keep(s); }
  bool on_number_part(string_view s, error_code&) { return keep(s); }
  bool on_comment_part(string_view, error_code&) { return true; }
  bool on_comment(string_view, error_code&) { return true; }

  bool on_key(string_view s, std::size_t, error_code& ec) {
    keep(s);
    std::string key = std::exchange(part_, {});
    if (skipped_depth_ > 0) return true;
    path_.resize(path_lengths_.back());
    if (!path_.empty()) path_ += '.';
    path_ += key;
    if (is_unread()) {
      skips_next_ = true;
      return true;
    }
    return check(builder_.key(std::move(key), kAt), ec);
  }
  bool on_string(string_view s, std::size_t, error_code& ec) { return scalar(Node::Kind::string, s, ec); }
  bool on_int64(std::int64_t i, string_view s, error_code& ec) { return scalar(Node::Kind::integer, s, ec, i); }
  bool on_uint64(std::uint64_t, string_view s, error_code& ec) { return scalar(Node::Kind::number, s, ec); }
  bool on_double(double, string_view s, error_code& ec) { return scalar(Node::Kind::number, s, ec); }
  bool on_bool(bool b, error_code& ec) { return scalar(Node::Kind::boolean, b ? "true" : "false", ec, b ? 1 : 0); }
  bool on_null(error_code& ec) { return scalar(Node::Kind::null, "null", ec); }

 private:
  static constexpr TextPosition kAt{1, 1};

  bool is_unread() const {
    const auto is_path = [&](std::string_view one) { return one == path_; };
    return std::any_of(kUnreadMetadata.begin(), kUnreadMetadata.end(), is_path) || std::any_of(unread_.begin(), unread_.end(), is_path);
  }
  bool keep(string_view s) {
    if (skipped_depth_ == 0 && !skips_next_) part_.append(s.data(), s.size());
    return true;
  }
  bool begin(Node::Kind kind, error_code& ec) {
    if (skipped_depth_ > 0 || std::exchange(skips_next_, false)) {
      ++skipped_depth_;
      return true;
    }
    path_lengths_.push_back(path_.size());
    return check(builder_.begin(kind, kAt), ec);
  }
  bool end(error_code& ec) {
    if (skipped_depth_ > 0) {
      --skipped_depth_;
      return true;
    }
    path_.resize(path_lengths_.back());
    path_lengths_.pop_back();
    return check(builder_.end(), ec);
  }
  bool scalar(Node::Kind kind, string_view s, error_code& ec, std::int64_t value = 0) {
    if (skipped_depth_ > 0 || std::exchange(skips_next_, false)) return true;
    keep(s);
    Node node;
    node.kind = kind;
    node.line = kAt.line;
    node.column = kAt.column;
    node.scalar = std::exchange(part_, {});
    if (kind == Node::Kind::integer) node.integer = value;
    if (kind == Node::Kind::boolean) node.boolean = value != 0;
    return check(builder_.value(std::move(node)), ec);
  }
  static bool check(bool ok, error_code& ec) {
    if (!ok) ec = boost::json::error::exception;  // any code: the builder holds the reason
    return ok;
  }

  DocumentBuilder& builder_;
  std::span<const std::string_view> unread_;
  std::string path_;
  std::vector<std::size_t> path_lengths_;  // of path_, outside each open value
  std::size_t skipped_depth_ = 0;
  bool skips_next_ = false;
  std::string part_;
};

}  // namespace

Result<Node> parse_object(WatchedKind kind, std::string_view json, std::string_view source) {
  const DocumentLimits limits{.bytes = object_bytes_max, .scalar_bytes = object_bytes_max};
  if (json.size() > limits.bytes) return Error{"longer than " + std::to_string(limits.bytes) + " bytes", std::string(source)};
  DocumentBuilder builder(source, limits);
  boost::json::parse_options options;
  options.max_depth = limits.depth + 8;  // of the skipped fields too
  boost::json::basic_parser<Events> parser(options, builder, unread_of(kind));
  error_code ec;
  const std::size_t used = parser.write_some(false, json.data(), json.size(), ec);
  if (ec) return builder.error().message.empty() ? Error{"not JSON: " + ec.message(), std::string(source)} : builder.error();
  if (json.find_first_not_of(" \t\r\n", used) != std::string_view::npos)
    return Error{"text after the end of the JSON value", std::string(source)};
  return builder.take();
}

}  // namespace postern

#include "base/federated_bundle.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "base/config_values.hpp"
#include "base/nearest_name.hpp"

namespace postern {

std::string_view name_of(FederatedBundle::Profile profile) {
  switch (profile) {
    case FederatedBundle::Profile::https_web: return "https_web";
    case FederatedBundle::Profile::https_spiffe: return "https_spiffe";
  }
  return "";
}

Result<void> check_federated_bundles(const std::vector<FederatedBundle>& bundles, const TrustDomain& own, std::string_view field) {
  const auto is_own = [&](const FederatedBundle& one) { return one.domain == own; };
  if (std::none_of(bundles.begin(), bundles.end(), is_own)) return {};
  return Error{own.text() + " is this mesh's own trust domain, whose bundle comes with the SVID; take it out of the list",
               std::string(field)};
}

namespace config_value {
namespace {

constexpr std::string_view example = "a list such as [{trustDomain: partner.example, bundle: /etc/postern/partner.json}]";
constexpr std::array<std::string_view, 7> names{"trustDomain",      "bundle",         "endpoint",     "profile",
                                                "endpointSpiffeId", "endpointBundle", "endpointRoots"};

Error at(std::string_view name, const std::string& message) { return Error{std::string(name) + ": " + message, {}}; }

// The fields of one item, each of them text.
class Item {
 public:
  static Result<Item> of(const Node& node) {
    if (!node.is(Node::Kind::mapping)) return ill_typed(node, example);
    Item item;
    for (const auto& [key, value] : node.fields) {
      const auto known = std::find(names.begin(), names.end(), key);
      if (known == names.end()) {
        const auto nearest = nearest_name(key, names);
        return at(config_value::quoted(std::string_view(key).substr(0, 64)),
                  "unknown field" + (nearest ? "; did you mean " + std::string(*nearest) + "?" : std::string()));
      }
      if (!value.is(Node::Kind::string) || value.scalar.empty()) return at(key, ill_typed(value, "a text that is not empty").message);
      item.values_[static_cast<std::size_t>(known - names.begin())] = value.scalar;
    }
    return item;
  }

  const std::string& operator[](std::string_view name) const {
    return values_[static_cast<std::size_t>(std::find(names.begin(), names.end(), name) - names.begin())];
  }

 private:
  std::array<std::string, names.size()> values_;
};

Result<void> read_endpoint(const Item& item, FederatedBundle& out) {
  const std::string& endpoint = item["endpoint"];
  if (endpoint.starts_with("http://")) return at("endpoint", "a bundle is fetched over TLS only; write https://");
  auto url = parse_https_url(endpoint);
  if (!url) return at("endpoint", url.error().message);
  out.endpoint = endpoint;
  out.url = *std::move(url);
  const std::string& profile = item["profile"];
  if (profile == name_of(FederatedBundle::Profile::https_web)) {
    for (const std::string_view name : {"endpointSpiffeId", "endpointBundle"}) {
      if (!item[name].empty()) return at(name, "only with profile: https_spiffe");
    }
    out.endpoint_roots = item["endpointRoots"];
    return {};
  }
  if (profile != name_of(FederatedBundle::Profile::https_spiffe))
    return at("profile",
              "expected https_web or https_spiffe: how the endpoint proves itself; found " + config_value::quoted(profile.substr(0, 64)));
  out.profile = FederatedBundle::Profile::https_spiffe;
  if (!item["endpointRoots"].empty()) return at("endpointRoots", "only with profile: https_web");
  auto id = SpiffeId::parse(item["endpointSpiffeId"]);
  if (!id) return at("endpointSpiffeId", "expected the SPIFFE ID of the endpoint: " + id.error().message);
  out.endpoint_id = *std::move(id);
  out.endpoint_bundle = item["endpointBundle"];
  if (out.endpoint_bundle.empty())
    return at("endpointBundle",
              "missing; expected a file with the trust bundle that proves the endpoint, for the first retrieval at least");
  return {};
}

Result<FederatedBundle> read_item(const Node& node, bool endpoints) {
  const auto item = Item::of(node);
  if (!item) return item.error();
  FederatedBundle out;
  auto domain = TrustDomain::parse((*item)["trustDomain"]);
  if (!domain) return at("trustDomain", domain.error().message);
  out.domain = *std::move(domain);
  out.file = (*item)["bundle"];
  const bool has_endpoint = !(*item)["endpoint"].empty();
  if (!endpoints && has_endpoint)
    return at("endpoint", "a sidecar fetches nothing; let postern-control fetch it (federatedBundles there), or name a file in bundle");
  if (out.file.empty() == !has_endpoint)
    return at("bundle", endpoints ? "expected either bundle, a file, or endpoint, an https URL" : "missing; expected the path of a file");
  if (has_endpoint) {
    if (auto read = read_endpoint(*item, out); !read) return read.error();
    return out;
  }
  for (const std::string_view name : {"profile", "endpointSpiffeId", "endpointBundle", "endpointRoots"}) {
    if (!(*item)[name].empty()) return at(name, "only with an endpoint");
  }
  return out;
}

Result<std::vector<FederatedBundle>> read_items(const Node& node, bool endpoints) {
  if (!node.is(Node::Kind::sequence)) return ill_typed(node, example);
  if (node.items.size() > max_federated_bundles)
    return Error{"expected at most " + std::to_string(max_federated_bundles) + " trust domains; found " + std::to_string(node.items.size()),
                 {}};
  std::vector<FederatedBundle> out;
  for (std::size_t i = 0; i < node.items.size(); ++i) {
    const std::string which = "item " + std::to_string(i + 1) + ": ";
    auto item = read_item(node.items[i], endpoints);
    if (!item) return Error{which + item.error().message, {}};
    const auto same = [&](const FederatedBundle& one) { return one.domain == item->domain; };
    if (std::any_of(out.begin(), out.end(), same))
      return Error{which + "trustDomain: " + item->domain.text() + " is in the list already; a trust domain has one bundle", {}};
    out.push_back(*std::move(item));
  }
  return out;
}

}  // namespace

Result<std::vector<FederatedBundle>> FederatedBundleList::read(const Node& node) { return read_items(node, true); }
Result<std::vector<FederatedBundle>> FederatedFileList::read(const Node& node) { return read_items(node, false); }

std::string FederatedBundleList::print(const std::vector<FederatedBundle>& value) {
  std::string out = "[";
  for (const FederatedBundle& one : value) {
    out.append(out.size() == 1 ? "" : ", ").append("{trustDomain: ").append(config_value::quoted(one.domain.text()));
    const std::string_view profile = one.endpoint.empty() ? std::string_view() : name_of(one.profile);
    const std::array<std::pair<std::string_view, std::string_view>, 6> fields{{{"bundle", one.file},
                                                                               {"endpoint", one.endpoint},
                                                                               {"profile", profile},
                                                                               {"endpointSpiffeId", one.endpoint_id.text()},
                                                                               {"endpointBundle", one.endpoint_bundle},
                                                                               {"endpointRoots", one.endpoint_roots}}};
    for (const auto& [name, text] : fields) {
      if (!text.empty()) out.append(", ").append(name).append(": ").append(config_value::quoted(text));
    }
    out += '}';
  }
  return out + "]";
}

}  // namespace config_value
}  // namespace postern

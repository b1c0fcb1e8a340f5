#include "authz/decision_index.hpp"

#include <algorithm>
#include <map>
#include <span>
#include <string>
#include <utility>

namespace postern {

// Builds a DecisionIndex; holds what only the building needs.
class DecisionIndexBuilder {
 public:
  DecisionIndexBuilder(DecisionIndex& index, const AllowList& list, PolicyDirection direction, const Workload& self,
                       const Topology& topology)
      : index_(index), list_(list), rules_(list.direction(direction)), direction_(direction), self_(self), topology_(topology) {}

  void build() {
    index_.isolated_ = {rules_.isolated(Plane::enforced), rules_.isolated(Plane::pending)};
    index_.maps_.emplace_back();
    sort_items();
    number_profiles();
    build_any();
    build_classes();
    build_blocks();
    for (const auto& [id, items] : items_of_id_) index_.spiffe_ids_.emplace(id, merge(items, profiles_.front()));
  }

 private:
  // One (rule, peer), by its rank.
  struct Item {
    RuleRank rank;
    const AllowRule* rule;
  };
  using NamedPortKey = std::pair<Protocol, std::string>;
  using Profile = std::vector<std::optional<Port>>;  // beside port_names_

  void sort_items() {
    items_of_set_.resize(list_.peer_sets.size());
    for (const AllowRule& rule : rules_.rules) {
      for (const AllowedPeer& peer : rule.peers) {
        const Item item{static_cast<RuleRank>(index_.origins_.size()), &rule};
        index_.origins_.push_back(&peer.origin);
        if (const auto* set = std::get_if<PeerSetRef>(&peer.peer)) {
          items_of_set_[set->index].push_back(item);
        } else if (const auto* listed = std::get_if<SpiffeIdPeer>(&peer.peer)) {
          items_of_id_[listed->id].push_back(item);
        } else if (const auto* block = std::get_if<IpBlock>(&peer.peer)) {
          items_of_block_[canonical(*block)].push_back(item);
        } else {
          any_items_.push_back(item);
        }
      }
    }
  }

  static IpBlock canonical(IpBlock block) {
    std::sort(block.except.begin(), block.except.end());
    block.except.erase(std::unique(block.except.begin(), block.except.end()), block.except.end());
    return block;
  }

  Profile profile_of(const Workload& destination) const {
    Profile profile;
    for (const auto& [protocol, name] : port_names_) profile.push_back(destination.named_port(name, protocol));
    return profile;
  }

  void number_profiles() {
    for (const AllowRule& rule : rules_.rules) {
      for (const PolicyPort& port : rule.ports) {
        if (!port.name.empty()) port_names_.emplace_back(port.protocol, port.name);
      }
    }
    std::sort(port_names_.begin(), port_names_.end());
    port_names_.erase(std::unique(port_names_.begin(), port_names_.end()), port_names_.end());
    if (direction_ == PolicyDirection::ingress) {
      profiles_.push_back(profile_of(self_));
      return;
    }
    profiles_.emplace_back(port_names_.size());  // 0: nothing resolves
    if (port_names_.empty()) return;
    std::map<Profile, std::uint32_t> numbers{{profiles_.front(), 0}};
    for (const Workload& workload : topology_.workloads()) {
      // A hostNetwork pod is its node's address to policies, and an address names no ports.
      Profile profile = workload.host_network ? profiles_.front() : profile_of(workload);
      const auto [number, is_new] = numbers.try_emplace(profile, static_cast<std::uint32_t>(profiles_.size()));
      if (is_new) profiles_.push_back(std::move(profile));
      index_.profile_of_.push_back(number->second);
    }
  }

  void add_intervals(const Item& item, const Profile& profile, std::array<std::vector<PortInterval>, 3>& intervals) const {
    if (item.rule->ports.empty()) {
      for (auto& of_protocol : intervals) of_protocol.push_back({0, 0xffff, item.rank});
    }
    for (const PolicyPort& port : item.rule->ports) {
      auto& of_protocol = intervals[static_cast<std::size_t>(port.protocol)];
      if (!port.name.empty()) {
        const auto name = std::lower_bound(port_names_.begin(), port_names_.end(), NamedPortKey(port.protocol, port.name));
        const auto& number = profile[static_cast<std::size_t>(name - port_names_.begin())];
        if (number) of_protocol.push_back({number->number, number->number, item.rank});
      } else if (port.port) {
        of_protocol.push_back({port.port->number, port.end_port.value_or(*port.port).number, item.rank});
      } else {
        of_protocol.push_back({0, 0xffff, item.rank});
      }
    }
  }

  std::uint32_t merge(std::span<const Item> items, const Profile& profile, Plane plane) {
    std::array<std::vector<PortInterval>, 3> intervals;
    for (const Item& item : items) {
      if (counts_in(plane, *item.rule)) add_intervals(item, profile, intervals);
    }
    if (std::all_of(intervals.begin(), intervals.end(), [](const auto& list) { return list.empty(); })) return 0;
    index_.maps_.push_back({PortMap(intervals[0]), PortMap(intervals[1]), PortMap(intervals[2])});
    return static_cast<std::uint32_t>(index_.maps_.size() - 1);
  }

  DecisionIndex::PlaneMaps merge(std::span<const Item> items, const Profile& profile) {
    const std::uint32_t pending = merge(items, profile, Plane::pending);
    const bool differ = std::any_of(items.begin(), items.end(), [](const Item& item) {
      return counts_in(Plane::enforced, *item.rule) != counts_in(Plane::pending, *item.rule);
    });
    return {.enforced = differ ? merge(items, profile, Plane::enforced) : pending, .pending = pending};
  }

  void build_any() {
    for (const Profile& profile : profiles_) index_.any_.push_back(merge(any_items_, profile));
  }

  // Refines classes set by set: a workload's class is the last step of the chain of sets that it is in.
  void build_classes() {
    struct Step {
      std::uint32_t before;
      std::uint32_t set;
    };
    std::vector<Step> steps{{0, 0}};
    std::map<std::pair<std::uint32_t, std::uint32_t>, std::uint32_t> known;
    std::vector<std::uint32_t> step_of(topology_.workloads().size(), 0);
    for (std::uint32_t set = 0; set < list_.peer_sets.size(); ++set) {
      if (items_of_set_[set].empty()) continue;
      for (const std::uint32_t member : list_.peer_sets[set]->members) {
        const auto [next, is_new] = known.try_emplace({step_of[member], set}, static_cast<std::uint32_t>(steps.size()));
        if (is_new) steps.push_back({step_of[member], set});
        step_of[member] = next->second;
      }
    }

    index_.classes_.emplace_back();
    index_.class_of_.resize(step_of.size());
    std::map<std::pair<std::uint32_t, std::uint32_t>, std::uint32_t> class_of_step;
    for (std::size_t i = 0; i < step_of.size(); ++i) {
      if (step_of[i] == 0) continue;
      const std::uint32_t profile = index_.profile_of_.empty() ? 0 : index_.profile_of_[i];
      const auto [number, is_new] = class_of_step.try_emplace({step_of[i], profile}, static_cast<std::uint32_t>(index_.classes_.size()));
      if (is_new) {
        std::vector<Item> items;
        for (std::uint32_t step = step_of[i]; step != 0; step = steps[step].before) {
          const auto& of_set = items_of_set_[steps[step].set];
          items.insert(items.end(), of_set.begin(), of_set.end());
        }
        index_.classes_.push_back(merge(items, profiles_[profile]));
      }
      index_.class_of_[i] = number->second;
    }
  }

  void build_blocks() {
    std::vector<IpBlock> blocks;
    std::vector<const std::vector<Item>*> items_of;
    for (const auto& [block, items] : items_of_block_) {
      blocks.push_back(block);
      items_of.push_back(&items);
    }
    index_.blocks_ = BlockTable(blocks);
    for (const auto& members : index_.blocks_.classes()) {
      std::vector<Item> items;
      for (const std::uint32_t block : members) items.insert(items.end(), items_of[block]->begin(), items_of[block]->end());
      const bool named = std::any_of(items.begin(), items.end(), [](const Item& item) {
        return std::any_of(item.rule->ports.begin(), item.rule->ports.end(), [](const PolicyPort& p) { return !p.name.empty(); });
      });
      const DecisionIndex::PlaneMaps first = merge(items, profiles_.front());
      index_.block_classes_.push_back(first);
      for (std::size_t i = 1; i < profiles_.size(); ++i) index_.block_classes_.push_back(named ? merge(items, profiles_[i]) : first);
    }
  }

  DecisionIndex& index_;
  const AllowList& list_;
  const AllowDirection& rules_;
  PolicyDirection direction_;
  const Workload& self_;
  const Topology& topology_;
  std::vector<Item> any_items_;
  std::vector<std::vector<Item>> items_of_set_;
  std::map<IpBlock, std::vector<Item>> items_of_block_;
  std::map<std::string, std::vector<Item>> items_of_id_;
  std::vector<NamedPortKey> port_names_;  // sorted
  std::vector<Profile> profiles_;
};

DecisionIndex::DecisionIndex(const AllowList& list, PolicyDirection direction, const Workload& self, const Topology& topology) {
  DecisionIndexBuilder(*this, list, direction, self, topology).build();
}

void DecisionIndex::improve(Winners& winners, const PlaneMaps& maps, Port port, Protocol protocol) const {
  const auto at = static_cast<std::size_t>(protocol);
  const RuleRank pending = maps_[maps.pending][at].find(port);
  const RuleRank enforced = maps.enforced == maps.pending ? pending : maps_[maps.enforced][at].find(port);
  winners.pending = std::min(winners.pending, pending);
  winners.enforced = std::min(winners.enforced, enforced);
}

Winners DecisionIndex::find(std::optional<std::uint32_t> workload, bool in_peer_sets, const IpAddress& address, Port port,
                            Protocol protocol) const {
  const std::uint32_t profile = workload && !profile_of_.empty() ? profile_of_[*workload] : 0;
  Winners winners;
  improve(winners, any_[profile], port, protocol);
  if (workload && in_peer_sets) improve(winners, classes_[class_of_[*workload]], port, protocol);
  improve(winners, block_classes_[blocks_.find(address) * any_.size() + profile], port, protocol);
  return winners;
}

Winners DecisionIndex::find_outsider(const std::string& id, bool domain_allowed, const IpAddress& address, Port port,
                                     Protocol protocol) const {
  Winners winners;
  if (const auto listed = spiffe_ids_.find(id); listed != spiffe_ids_.end()) improve(winners, listed->second, port, protocol);
  if (!domain_allowed) return winners;
  improve(winners, any_.front(), port, protocol);
  improve(winners, block_classes_[blocks_.find(address) * any_.size()], port, protocol);
  return winners;
}

}  // namespace postern

// Every case of tests/cases through decide() and explain(), one test per case.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "authz/compiler.hpp"
#include "authz/explain.hpp"
#include "authz/manifests.hpp"
#include "authz/topology.hpp"
#include "base/document.hpp"
#include "tests/unit/authz/cluster_builder.hpp"

namespace postern::test {
namespace {

namespace fs = std::filesystem;

std::string text_of_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> case_names() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(fs::path(POSTERN_SOURCE_DIR) / "tests/cases")) {
    if (fs::exists(entry.path() / "queries.jsonl")) names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

ClusterView cluster_of(const fs::path& folder) {
  std::vector<fs::path> files{folder / "manifests.yaml"};
  if (fs::is_directory(folder / "manifests")) {
    files.clear();
    for (const auto& entry : fs::directory_iterator(folder / "manifests")) files.push_back(entry.path());
  }
  std::vector<Document> documents;
  for (const auto& file : files) {
    auto parsed = parse_yaml(text_of_file(file), file.filename().string()).value();
    std::move(parsed.begin(), parsed.end(), std::back_inserter(documents));
  }
  return decode_manifests(documents).value().cluster;
}

struct End {
  const Workload* pod = nullptr;
  std::vector<IpAddress> addresses;
};

class Case : public testing::TestWithParam<std::string> {
 protected:
  Case() : view_(cluster_of(folder())), compiler_(view_, settings()) {}

  fs::path folder() const { return fs::path(POSTERN_SOURCE_DIR) / "tests/cases" / GetParam(); }
  static MeshSettings settings() {
    MeshSettings settings;
    settings.node_traffic = NodeTraffic::none;
    return settings;
  }

  End end_of(const std::string& name) {
    if (name.find('/') == std::string::npos) return {.pod = compiler_.topology()->at(ip(name)), .addresses = {ip(name)}};
    const ObjectKey id = key(name);
    const Workload* pod = compiler_.topology()->find(id.ns, id.name);
    return {.pod = pod, .addresses = pod->addresses};
  }

  static IpAddress of_family(const End& end, IpFamily family) {
    const auto found =
        std::find_if(end.addresses.begin(), end.addresses.end(), [family](const IpAddress& a) { return a.family() == family; });
    return found == end.addresses.end() ? end.addresses.front() : *found;
  }

  std::string verdict(PolicyDirection direction, const End& self, const Peer& peer, Port port, Protocol protocol) {
    if (self.pod == nullptr) return "allow";
    const auto snapshot = compiler_.compile({self.pod->ns, self.pod->name}, 1).value();
    const Verdict decided = decide(snapshot.get(), direction, peer, port, protocol);
    const Verdict explained = explain(*snapshot, direction, peer, port, protocol).verdict;
    EXPECT_EQ(decided.enforced.origin, explained.enforced.origin);
    EXPECT_EQ(decided.enforced.allowed, explained.enforced.allowed);
    return decided.allowed() ? "allow" : "deny";
  }

  ClusterView view_;
  Compiler compiler_;
};

TEST_P(Case, EveryVerdictIsTheExpectedOne) {
  std::istringstream lines(text_of_file(folder() / "queries.jsonl"));
  std::size_t queries = 0;
  for (std::string line; std::getline(lines, line); ++queries) {
    const Document query = parse_json(line, "query").value();
    const auto field = [&](std::string_view name) { return query.root.find(name)->scalar; };
    const End from = end_of(field("from"));
    const End to = end_of(field("to"));
    const Port port{static_cast<std::uint16_t>(query.root.find("port")->integer)};
    const Protocol protocol = field("protocol") == "TCP" ? Protocol::tcp : field("protocol") == "UDP" ? Protocol::udp : Protocol::sctp;
    const bool source_is_address = field("from").find('/') == std::string::npos;
    const IpAddress destination = source_is_address ? of_family(to, from.addresses.front().family()) : to.addresses.front();
    const Peer callee{.workload = to.pod, .address = destination};
    const Peer caller{.workload = from.pod, .address = of_family(from, destination.family())};
    EXPECT_EQ(verdict(PolicyDirection::egress, from, callee, port, protocol), field("egress")) << line;
    EXPECT_EQ(verdict(PolicyDirection::ingress, to, caller, port, protocol), field("ingress")) << line;
  }
  EXPECT_GT(queries, 0U);
}

std::string test_name(const testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Cases, Case, testing::ValuesIn(case_names()), test_name);

}  // namespace
}  // namespace postern::test

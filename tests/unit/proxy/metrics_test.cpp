#include "proxy/metrics.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <sstream>

namespace postern {
namespace {

// Series ("name{labels}") to value, and the families with their types: the text format read back.
struct Parsed {
  std::map<std::string, double> series;
  std::map<std::string, std::string> types;
};

Parsed parse(const std::string& text) {
  Parsed out;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) {
    if (line.rfind("# TYPE ", 0) == 0) {
      const auto space = line.find(' ', 7);
      out.types[line.substr(7, space - 7)] = line.substr(space + 1);
    } else if (line.rfind('#', 0) != 0) {
      const auto space = line.rfind(' ');
      EXPECT_NE(space, std::string::npos) << line;
      EXPECT_TRUE(out.series.emplace(line.substr(0, space), std::stod(line.substr(space + 1))).second) << "twice: " << line;
    }
  }
  return out;
}

std::size_t at(Direction d) { return static_cast<std::size_t>(d); }
std::size_t at(VerdictLabel v) { return static_cast<std::size_t>(v); }
std::size_t at(Reason r) { return static_cast<std::size_t>(r); }

class Metrics : public ::testing::Test {
 protected:
  Parsed scrape() { return parse(render_metrics({one.get(), two.get()}, facts)); }

  std::unique_ptr<WorkerCounters> one = std::make_unique<WorkerCounters>();
  std::unique_ptr<WorkerCounters> two = std::make_unique<WorkerCounters>();
  AdminBackend::Facts facts;
};

TEST_F(Metrics, SumTheWorkers) {
  one->connections_opened[at(Direction::inbound)].add(3);
  two->connections_opened[at(Direction::inbound)].add(4);
  two->connections_opened[at(Direction::outbound)].add(5);
  one->bytes_sent[at(Direction::outbound)].add(10'000'000'000'000);
  two->bytes_received[at(Direction::outbound)].add(7);
  one->handshakes_full[at(Direction::inbound)].add(2);
  two->handshakes_resumed[at(Direction::inbound)].add(9);
  two->streams_recycled.add(11);
  const Parsed got = scrape();
  EXPECT_EQ(got.series.at("postern_connections_opened_total{direction=\"inbound\"}"), 7);
  EXPECT_EQ(got.series.at("postern_connections_opened_total{direction=\"outbound\"}"), 5);
  EXPECT_EQ(got.series.at("postern_bytes_total{direction=\"outbound\",way=\"sent\"}"), 1e13);
  EXPECT_EQ(got.series.at("postern_bytes_total{direction=\"outbound\",way=\"received\"}"), 7);
  EXPECT_EQ(got.series.at("postern_handshakes_total{direction=\"inbound\",kind=\"full\"}"), 2);
  EXPECT_EQ(got.series.at("postern_handshakes_total{direction=\"inbound\",kind=\"resumed\"}"), 9);
  EXPECT_EQ(got.series.at("postern_streams_recycled_total"), 11);
}

TEST_F(Metrics, ClosedConnectionsHaveOnlyTheSeriesThatHappened) {
  EXPECT_FALSE(scrape().types.contains("postern_connections_closed_total"));
  one->connections_closed[at(Direction::inbound)][at(VerdictLabel::dropped)][at(Reason::denied)].add(2);
  two->connections_closed[at(Direction::inbound)][at(VerdictLabel::dropped)][at(Reason::denied)].add(1);
  two->connections_closed[at(Direction::outbound)][at(VerdictLabel::forwarded)][at(Reason::finished)].add(5);
  const Parsed got = scrape();
  EXPECT_EQ(got.series.at("postern_connections_closed_total{direction=\"inbound\",verdict=\"DROPPED\",reason=\"denied\"}"), 3);
  EXPECT_EQ(got.series.at("postern_connections_closed_total{direction=\"outbound\",verdict=\"FORWARDED\",reason=\"finished\"}"), 5);
  std::size_t closed = 0;
  for (const auto& [name, value] : got.series) closed += name.rfind("postern_connections_closed_total", 0) == 0 ? 1 : 0;
  EXPECT_EQ(closed, 2U);
}

TEST_F(Metrics, FailuresAndShedConnectionsCarryTheirReason) {
  one->handshakes_failed[at(Direction::inbound)][at(Reason::certificate_required)].add();
  one->shed[at(Reason::too_many_connections)].add(6);
  const Parsed got = scrape();
  EXPECT_EQ(got.series.at("postern_handshakes_failed_total{direction=\"inbound\",reason=\"certificate_required\"}"), 1);
  EXPECT_EQ(got.series.at("postern_connections_shed_total{reason=\"too_many_connections\"}"), 6);
}

TEST_F(Metrics, HistogramsAreCumulativeOverWorkers) {
  one->handshake_duration[at(Direction::inbound)].observe_us(50);
  two->handshake_duration[at(Direction::inbound)].observe_us(900);
  two->handshake_duration[at(Direction::inbound)].observe_us(9'000'000);
  const Parsed got = scrape();
  EXPECT_EQ(got.types.at("postern_handshake_duration_seconds"), "histogram");
  EXPECT_EQ(got.series.at("postern_handshake_duration_seconds_bucket{direction=\"inbound\",le=\"0.0001\"}"), 1);
  EXPECT_EQ(got.series.at("postern_handshake_duration_seconds_bucket{direction=\"inbound\",le=\"0.001\"}"), 2);
  EXPECT_EQ(got.series.at("postern_handshake_duration_seconds_bucket{direction=\"inbound\",le=\"5\"}"), 2);
  EXPECT_EQ(got.series.at("postern_handshake_duration_seconds_bucket{direction=\"inbound\",le=\"+Inf\"}"), 3);
  EXPECT_EQ(got.series.at("postern_handshake_duration_seconds_count{direction=\"inbound\"}"), 3);
  EXPECT_NEAR(got.series.at("postern_handshake_duration_seconds_sum{direction=\"inbound\"}"), 9.00095, 1e-9);
}

TEST_F(Metrics, GenerationIsThatOfTheSlowestWorker) {
  one->policy_generation.set(8);
  two->policy_generation.set(7);
  EXPECT_EQ(scrape().series.at("postern_policy_generation"), 7);
}

TEST_F(Metrics, FactsAreGaugesAndCounters) {
  EXPECT_FALSE(scrape().series.contains("postern_policy_age_seconds"));
  EXPECT_EQ(scrape().series.at("postern_svid_expiry_timestamp_seconds"), 0);
  facts = {.svid_expiry_seconds = 1'800'000'000,
           .policy_age_seconds = 12.5,
           .policy_generation = 3,
           .policy_rejected = 4,
           .identity_rejected = 5};
  const Parsed got = scrape();
  EXPECT_EQ(got.series.at("postern_svid_expiry_timestamp_seconds"), 1'800'000'000);
  EXPECT_EQ(got.series.at("postern_policy_age_seconds"), 12.5);
  EXPECT_EQ(got.series.at("postern_policy_rejected_total"), 4);
  EXPECT_EQ(got.series.at("postern_identity_rejected_total"), 5);
  EXPECT_EQ(parse(render_metrics({}, facts)).series.at("postern_policy_generation"), 3);
}

TEST_F(Metrics, TheControlPlanesFactsAreThereWhereItIs) {
  EXPECT_FALSE(scrape().series.contains("postern_control_connected"));
  facts.control = {.connected = true, .updates = 2, .refused = 3, .streams = 4, .lookups = 5};
  const Parsed got = scrape();
  EXPECT_EQ(got.series.at("postern_control_connected"), 1);
  EXPECT_EQ(got.series.at("postern_control_updates_total"), 2);
  EXPECT_EQ(got.series.at("postern_control_refused_total"), 3);
  EXPECT_EQ(got.series.at("postern_control_streams_total"), 4);
  EXPECT_EQ(got.series.at("postern_control_lookups_total"), 5);
}

// Makes every family appear, then compares with the documentation both ways.
TEST_F(Metrics, AreAllInTheDocumentationWithTheirType) {
  one->connections_closed[0][0][at(Reason::finished)].add();
  one->handshakes_failed[0][at(Reason::handshake_failed)].add();
  one->shed[at(Reason::too_many_connections)].add();
  facts.policy_age_seconds = 1;
  facts.control.emplace();
  std::ifstream file(std::string(POSTERN_SOURCE_DIR) + "/docs/metrics.md");
  std::set<std::string> documented;
  std::map<std::string, std::string> rows;
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("| `postern_", 0) != 0) continue;
    const auto end = line.find_first_of("`{", 3);
    rows[line.substr(3, end - 3)] = line;
    documented.insert(line.substr(3, end - 3));
  }
  std::set<std::string> exposed;
  for (const auto& [name, type] : scrape().types) {
    exposed.insert(name);
    EXPECT_THAT(rows[name], ::testing::HasSubstr("| " + type + " |")) << name;
  }
  EXPECT_EQ(exposed, documented);
}

}  // namespace
}  // namespace postern

#include "control/metrics.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

namespace postern {
namespace {

using testing::HasSubstr;

ControlFacts facts() {
  ControlFacts facts;
  facts.watches.push_back({.kind = WatchedKind::pods, .synced = true, .relists = 2});
  facts.server.ended["malformed"] = 3;
  facts.flush.observe(0.004);
  facts.flush.observe(100);
  return facts;
}

TEST(ControlMetrics, CountWhatHappened) {
  const std::string text = render_metrics(facts());
  EXPECT_THAT(text, HasSubstr("postern_control_watch_relists_total{kind=\"pods\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("postern_control_watch_silence_seconds{kind=\"pods\"} -1\n"));
  EXPECT_THAT(text, HasSubstr("postern_control_streams_ended_total{reason=\"malformed\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("postern_control_flush_duration_seconds_bucket{le=\"0.0025\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("postern_control_flush_duration_seconds_bucket{le=\"0.005\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("postern_control_flush_duration_seconds_bucket{le=\"60\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("postern_control_flush_duration_seconds_bucket{le=\"+Inf\"} 2\n"));
}

TEST(ControlMetrics, AreAllInTheDocumentation) {
  std::ifstream file(std::string(POSTERN_SOURCE_DIR) + "/docs/control.md");
  std::stringstream documented;
  documented << file.rdbuf();
  std::istringstream text(render_metrics(facts()));
  int families = 0;
  for (std::string line; std::getline(text, line);) {
    if (!line.starts_with("# TYPE ")) continue;
    ++families;
    const std::string name = line.substr(7, line.find(' ', 7) - 7);
    EXPECT_TRUE(documented.str().find("`" + name + "`") != std::string::npos ||
                documented.str().find("`" + name + "{") != std::string::npos)
        << name;
  }
  EXPECT_GT(families, 30);
}

}  // namespace
}  // namespace postern

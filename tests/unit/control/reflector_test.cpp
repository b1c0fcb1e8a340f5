#include "control/reflector.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/control/fake_api.hpp"

namespace postern {
namespace {

using test::Answer;
using test::chunks;
using test::FakeApi;
using test::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

std::string node(const std::string& name, int version) {
  return R"({"metadata":{"name":")" + name + R"(","uid":"u-)" + name + R"(","resourceVersion":")" + std::to_string(version) + "\"}}";
}
std::string list(int version, const std::vector<std::string>& items, const std::string& next = {}) {
  std::string out =
      R"({"kind":"NodeList","metadata":{"resourceVersion":")" + std::to_string(version) + R"(","continue":")" + next + R"("},"items":[)";
  for (std::size_t i = 0; i < items.size(); ++i) out += (i == 0 ? "" : ",") + items[i];
  return out + "]}";
}
std::string event(const std::string& type, const std::string& object) { return R"({"type":")" + type + R"(","object":)" + object + "}\n"; }
const std::string kExpired = R"({"kind":"Status","code":410,"reason":"Expired","message":"too old resource version"})";
const Answer kSilence{.bytes = {}, .then = Answer::Then::silence};

class ReflectorTest : public testing::Test {
 protected:
  // Runs a reflector against these answers until it has made `requests` requests (or `enough` says so).
  void run(
      std::vector<Answer> answers, std::size_t requests, std::function<bool()> enough = [] { return true; }) {
    api_.emplace(std::move(answers));
    KubeClient client(io_, api_->config());
    Reflector::Handlers handlers;
    handlers.on_event = [this](WatchEvent event) { events_.push_back(words(event)); };
    handlers.on_unreadable = [this](Unreadable one) { unreadable_.push_back(one.key.text() + " " + one.reason); };
    handlers.last_good = [](WatchedKind, const ObjectKey&) { return std::nullopt; };
    Reflector reflector(io_, client, settings_, std::move(handlers), log_);
    reflector.start();
    EXPECT_TRUE(test::run_until(io_, [&] { return api_->requests().size() >= requests && enough(); }));
    stats_ = reflector.stats();
    reflector.stop();
    client.close();
    io_.restart();
    io_.run();
    for (const std::string& request : api_->requests()) {
      const std::string line = request.substr(0, request.find(" HTTP"));
      // How long a watch is asked for has jitter.
      const std::size_t seconds = line.find("&timeoutSeconds=");
      requests_.push_back(seconds == std::string::npos ? line : line.substr(0, seconds) + line.substr(line.find('&', seconds + 1)));
    }
  }

  static std::string words(const WatchEvent& event) {
    static constexpr std::array kNames{"applied", "deleted", "relisted", "relist_began", "bookmark"};
    std::string out = kNames.at(static_cast<std::size_t>(event.type)) + (" " + event.key.name) + " " + std::to_string(event.version);
    if (const auto* mesh = std::get_if<MeshConfig>(&event.object)) out += " epoch=" + mesh->epoch;
    return out;
  }

  static std::string watch(int version) {
    return "GET /api/v1/nodes?watch=1&allowWatchBookmarks=true&resourceVersion=" + std::to_string(version);
  }

  boost::asio::io_context io_{1};
  Log log_{LogLevel::error};
  ReflectorSettings settings_{
      .kind = WatchedKind::nodes, .backoff_first = std::chrono::milliseconds(2), .backoff_most = std::chrono::milliseconds(20)};
  std::optional<FakeApi> api_;
  std::vector<std::string> events_;
  std::vector<std::string> unreadable_;
  std::vector<std::string> requests_;
  Reflector::Stats stats_;
};

const std::string kList = "GET /api/v1/nodes?limit=500";

TEST_F(ReflectorTest, ListsInPagesThenWatchesFromThere) {
  run({json(list(10, {node("a", 3)}, "x/+=")), json(list(10, {node("b", 9)})),
       chunks({event("ADDED", node("c", 11)), event("MODIFIED", node("a", 12)), event("DELETED", node("b", 13)),
               event("BOOKMARK", node("", 20))}),
       kSilence},
      4);
  EXPECT_THAT(requests_, ElementsAre(kList, kList + "&continue=x%2F%2B%3D", watch(10), watch(20)));
  EXPECT_THAT(events_, ElementsAre("relist_began  10", "applied a 3", "applied b 9", "relisted  10", "applied c 11", "applied a 12",
                                   "deleted b 13", "bookmark  20"));
  EXPECT_TRUE(stats_.synced);
  EXPECT_EQ(stats_.relists, 1U);
  EXPECT_EQ(stats_.events, 3U);
  EXPECT_EQ(stats_.errors, 0U);
  EXPECT_EQ(stats_.version, 20U);
  EXPECT_EQ(api_->connections(), 1U) << "one after the other, all on one connection";
}

TEST_F(ReflectorTest, BeginsTheListAnewWhenItsTokenHasExpired) {
  run({json(list(10, {node("old", 3)}, "token")), json(kExpired, 410), json(list(30, {node("a", 21)})), kSilence}, 4);
  EXPECT_THAT(requests_, ElementsAre(kList, kList + "&continue=token", kList, watch(30)));
  EXPECT_THAT(events_, ElementsAre("relist_began  30", "applied a 21", "relisted  30")) << "nothing of the list that was not complete";
}

TEST_F(ReflectorTest, AListCutInTheMiddleSaysNothing) {
  Answer cut = json(list(10, {node("a", 3), node("b", 4)}));
  cut.bytes.resize(cut.bytes.size() - 20);
  cut.then = Answer::Then::cut;
  run({cut, json(list(11, {node("c", 5)})), kSilence}, 3);
  EXPECT_THAT(events_, ElementsAre("relist_began  11", "applied c 5", "relisted  11"));
  EXPECT_EQ(stats_.errors, 1U);
}

TEST_F(ReflectorTest, ResumesAWatchThatWasCutWithinAnObject) {
  const std::string second = event("ADDED", node("c", 12));
  run({json(list(10, {})), chunks({event("ADDED", node("b", 11)), second.substr(0, 25)}, false, Answer::Then::cut), chunks({second}),
       kSilence},
      4);
  EXPECT_THAT(requests_, ElementsAre(kList, watch(10), watch(11), watch(12)));
  EXPECT_THAT(events_, ElementsAre("relist_began  10", "relisted  10", "applied b 11", "applied c 12"));
}

TEST_F(ReflectorTest, ResumesAWatchThatEndedWithinAnObject) {
  const std::string second = event("ADDED", node("c", 12));
  run({json(list(10, {})), chunks({event("ADDED", node("b", 11)) + second.substr(0, 25)}), chunks({second}), kSilence}, 4);
  EXPECT_THAT(requests_, ElementsAre(kList, watch(10), watch(11), watch(12)));
}

TEST_F(ReflectorTest, ListsAnewWhenTheVersionIsGone) {
  run({json(list(10, {node("a", 3)})), json(kExpired, 410), json(list(40, {})), chunks({event("ERROR", kExpired)}), json(list(50, {})),
       kSilence},
      6);
  EXPECT_THAT(requests_, ElementsAre(kList, watch(10), kList, watch(40), kList, watch(50)));
  EXPECT_THAT(events_, ElementsAre("relist_began  10", "applied a 3", "relisted  10", "relist_began  40", "relisted  40",
                                   "relist_began  50", "relisted  50"));
  EXPECT_EQ(stats_.relists, 3U);
}

TEST_F(ReflectorTest, ListsAnewWhereItLostItsPlace) {
  run({json(list(10, {})), chunks({"nonsense\n"}), json(list(11, {})), chunks({event("ADDED", "{}")}), json(list(12, {})), kSilence}, 6);
  EXPECT_THAT(requests_, ElementsAre(kList, watch(10), kList, watch(11), kList, watch(12)));
}

TEST_F(ReflectorTest, ListsAnewWhenTheServerGoesOnRefusing) {
  const std::string too_large = R"({"kind":"Status","code":504,"reason":"Timeout","message":"Too large resource version"})";
  std::vector<Answer> answers{json(list(1000, {}))};
  for (int i = 0; i < 4; ++i) answers.push_back(json(too_large, 504));
  answers.push_back(json(list(7, {})));
  run(std::move(answers), 7);
  EXPECT_THAT(requests_, ElementsAre(kList, watch(1000), watch(1000), watch(1000), watch(1000), kList, watch(7)));
}

TEST_F(ReflectorTest, LeavesAWatchThatHasGoneSilent) {
  settings_.watch_idle = std::chrono::milliseconds(60);
  run({json(list(10, {})), chunks({}, false, Answer::Then::silence), kSilence}, 3);
  EXPECT_THAT(requests_, ElementsAre(kList, watch(10), watch(10)));
}

TEST_F(ReflectorTest, TellsOfAnEventAsSoonAsItHasCome) {
  run({json(list(10, {})), chunks({event("ADDED", node("b", 11))}, false, Answer::Then::silence)}, 2, [&] { return events_.size() == 3; });
  EXPECT_THAT(events_, ElementsAre("relist_began  10", "relisted  10", "applied b 11"));
  EXPECT_TRUE(stats_.watching);
}

TEST_F(ReflectorTest, TriesAgainAfterARefusedList) {
  run({json(R"({"kind":"Status","code":403,"reason":"Forbidden","message":"nodes is forbidden"})", 403), json(list(10, {})), kSilence}, 3);
  EXPECT_THAT(requests_, ElementsAre(kList, kList, watch(10)));
}

TEST_F(ReflectorTest, AnUnreadableObjectIsReportedAndTheRestGoesOn) {
  const std::string bad = R"({"metadata":{"name":"bad","uid":"u","resourceVersion":"4"},"spec":{"podCIDR":"nonsense"}})";
  run({json(list(10, {node("a", 3), bad})), chunks({event("MODIFIED", bad), event("ADDED", node("c", 12))}), kSilence}, 3);
  EXPECT_THAT(events_, ElementsAre("relist_began  10", "applied a 3", "relisted  10", "deleted bad 4", "applied c 12"));
  ASSERT_EQ(unreadable_.size(), 2U);
  EXPECT_THAT(unreadable_[0], HasSubstr("bad spec.podCIDR"));
}

class MeshReflectorTest : public ReflectorTest {
 protected:
  MeshReflectorTest() {
    settings_.kind = WatchedKind::mesh_config;
    settings_.mesh_config = {"mesh", "postern"};
    settings_.mesh_defaults.epoch = "default";
    settings_.mesh_defaults.settings.trust_domain = *TrustDomain::parse("example.org");
  }
  static std::string config_map(const std::string& yaml, int version, const std::string& name = "postern") {
    return R"({"metadata":{"name":")" + name + R"(","namespace":"mesh","resourceVersion":")" + std::to_string(version) +
           R"("},"data":{"epoch":"e)" + std::to_string(version) + R"(","mesh.yaml":")" + yaml + "\"}}";
  }
};

TEST_F(MeshReflectorTest, AnAbsentConfigMapMeansTheDefaults) {
  run({json(list(10, {config_map("audit: true", 2, "other")})),
       chunks({event("ADDED", config_map("audit: true", 11)), event("DELETED", config_map("audit: true", 12))}), kSilence},
      3);
  EXPECT_EQ(requests_[0], "GET /api/v1/namespaces/mesh/configmaps?limit=500&fieldSelector=metadata.name%3Dpostern");
  EXPECT_THAT(requests_[1], HasSubstr("&resourceVersion=10&fieldSelector=metadata.name%3Dpostern"));
  ASSERT_EQ(events_.size(), 5U);
  EXPECT_EQ(events_[1], "applied postern 10 epoch=default");
  EXPECT_EQ(events_[3], "applied postern 11 epoch=e11");
  EXPECT_EQ(events_[4], "applied postern 12 epoch=default");
}

TEST_F(MeshReflectorTest, OneThatNeverCouldBeReadIsNotGuessed) {
  run({json(list(10, {config_map("defaultPolicy: open", 2)})), chunks({event("MODIFIED", config_map("defaultPolicy: deny", 11))}),
       kSilence},
      3);
  EXPECT_THAT(events_, ElementsAre("relist_began  11", "applied postern 11 epoch=e11", "relisted  11"));
  ASSERT_EQ(unreadable_.size(), 1U);
  EXPECT_THAT(unreadable_[0], HasSubstr("defaultPolicy"));
  EXPECT_TRUE(stats_.synced);
}

}  // namespace
}  // namespace postern

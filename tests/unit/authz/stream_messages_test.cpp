#include "authz/stream_messages.hpp"

#include <gtest/gtest.h>

#include <limits>

#include "tests/unit/authz/cluster_builder.hpp"

namespace postern::test {
namespace {

const Mark mark{.epoch = "uid-1", .versions = {{"pods", 12}, {"networkpolicies", std::numeric_limits<std::uint64_t>::max()}, {"nodes", 0}}};

std::string failure_of_sidecar(std::string_view text) {
  const auto message = decode_sidecar_message(text);
  return message ? "accepted" : message.error().text();
}
std::string failure_of_control(std::string_view text) {
  const auto message = decode_control_message(text);
  return message ? "accepted" : message.error().text();
}

TEST(StreamMessages, WhatASidecarSaysComesBack) {
  const std::vector<SidecarMessage> messages{
      Hello{},
      Hello{.version = "1.0", .mark = mark, .have = {{"settings", "00ff"}, {"pod/shop/web", "abc"}}},
      Ack{.nonce = std::numeric_limits<std::uint64_t>::max()},
      Nack{.nonce = 1, .reason = "allow-list:1: \"bad\"\n\x01 \xC3\xA9"},
      Nack{},
      Lookup{.id = 7, .address = ip("fd00::1")},
      Forget{},
      Forget{.names = {"pod/shop/web", "service/shop/db"}},
  };
  for (const SidecarMessage& message : messages) {
    const std::string text = encode(message);
    const auto back = decode_sidecar_message(text);
    ASSERT_TRUE(back) << text << " " << back.error().text();
    EXPECT_EQ(*back, message) << text;
    EXPECT_NE(failure_of_control(text), "accepted") << text;
  }
  EXPECT_EQ(encode(messages[5]), R"({"type":"lookup","id":7,"address":"fd00::1"})");
}

TEST(StreamMessages, WhatTheControlPlaneSaysComesBack) {
  Update update{.nonce = 3, .mark = mark, .resources = {}, .removed = {"pod/shop/gone"}};
  const std::string body = R"({"addresses":["10.0.0.1"]})";
  update.resources.push_back(std::make_shared<Resource>(Resource{.name = "nodes", .hash = "0123", .body = body}));
  update.resources.push_back(std::make_shared<Resource>(Resource{.name = "settings", .hash = "4567", .body = "\"any\\ text\" \n\xC3\xA9"}));
  update.deltas.push_back({"peer-set/ab", "89", "ab", {{17, 9, ""}, {4, 0, "\"shop/web\","}}});
  const auto back = decode_control_message(encode(update));
  ASSERT_TRUE(back) << back.error().text();
  const auto& same = std::get<Update>(*back);
  EXPECT_EQ(same.nonce, 3U);
  EXPECT_EQ(same.mark, mark);
  EXPECT_EQ(same.removed, update.removed);
  EXPECT_EQ(same.deltas, update.deltas);
  ASSERT_EQ(same.resources.size(), 2U);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(*same.resources[static_cast<std::size_t>(i)], *update.resources[static_cast<std::size_t>(i)]);

  for (const ControlMessage& message : std::vector<ControlMessage>{LookupAnswer{.id = 1, .known = true, .error = ""},
                                                                   LookupAnswer{.id = 2, .known = false, .error = "too many"},
                                                                   NotReady{.reason = "pods are at 11, not 12"}, NotReady{}}) {
    const auto answer = decode_control_message(encode(message));
    ASSERT_TRUE(answer) << answer.error().text();
    EXPECT_EQ(encode(*answer), encode(message));
    EXPECT_EQ(answer->index(), message.index());
  }
}

TEST(StreamMessages, ASidecarsMalformedMessagesAreRefused) {
  const std::vector<std::pair<const char*, const char*>> cases{
      {"", "message"},
      {"[]", "expected a mapping"},
      {"{}", "type"},
      {R"({"type":"hello"})", "mark.versions"},
      {R"({"type":"update"})", "supported values"},
      {R"({"type":7})", "a string"},
      {R"({"type":"ack"})", "nonce"},
      {R"({"type":"ack","nonce":-1})", "nonce"},
      {R"({"type":"ack","nonce":1.5})", "nonce"},
      {R"({"type":"ack","nonce":"1"})", "nonce"},
      {R"({"type":"ack","nonce":18446744073709551616})", "nonce"},
      {R"({"type":"ack","nonce":1,"nonce":2})", "nonce"},
      {R"({"type":"ack","nonce":1,"more":2})", "unknown field"},
      {R"({"type":"ack","nonce":1}{)", "after the end"},
      {R"({"type":"lookup","id":1})", "address"},
      {R"({"type":"lookup","id":1,"address":"10.0.0.1/8"})", "address"},
      {R"({"type":"forget","names":[""]})", "names[0]"},
      {R"({"type":"forget","names":{}})", "names"},
      {R"({"type":"hello","mark":{"epoch":"e","versions":{"pods":"x"}},"have":{}})", "mark.versions.pods"},
      {R"({"type":"hello","mark":{"epoch":"e","versions":{}},"have":{"settings":1}})", "have.settings"},
      {R"({"type":"hello","mark":{"epoch":"e","versions":{}},"have":{"":"x"}})", "too long a name"},
      {R"({"type":"hello","mark":{"epoch":"e","versions":{},"x":[[]]},"have":{}})", "message"},
  };
  for (const auto& [text, part] : cases)
    EXPECT_NE(failure_of_sidecar(text).find(part), std::string::npos) << text << "\n" << failure_of_sidecar(text);
}

TEST(StreamMessages, TheControlPlanesMalformedMessagesAreRefused) {
  const std::string start = R"({"type":"update","nonce":1,"mark":{"epoch":"e","versions":{}},)";
  const std::vector<std::pair<std::string, const char*>> cases{
      {R"({"type":"hello"})", "supported values"},
      {start + R"("resources":[{"name":"nodes","hash":"h"}]})", "resources[0].body"},
      {start + R"("resources":[{"name":"nodes","body":"{}"}]})", "resources[0].hash"},
      {start + R"("resources":[{"name":"nodes","hash":"h","body":{}}]})", "resources[0].body"},
      {start + R"("resources":[{"name":"nodes","hash":"h","body":"{}"},{"name":"nodes","hash":"h","body":"{}"}]})", "there twice"},
      {start + R"("resources":[{"name":"nodes","hash":"h","body":"{}"}],"removed":["nodes"]})", "sent as well"},
      {start + R"("removed":["nodes","nodes"]})", "there twice"},
      {R"({"type":"answer","id":1,"known":1})", "known"},
  };
  for (const auto& [text, part] : cases)
    EXPECT_NE(failure_of_control(text).find(part), std::string::npos) << text << "\n" << failure_of_control(text);
  EXPECT_EQ(failure_of_control(start + R"("resources":[],"removed":[]})"), "accepted");
}

TEST(StreamMessages, SizesAreBounded) {
  EXPECT_NE(failure_of_sidecar(std::string(sidecar_message_bytes + 1, ' ')).find("longer than"), std::string::npos);
  const auto hello = [](std::size_t names, std::size_t hash_bytes) {
    Hello out;
    for (std::size_t i = 0; i < names; ++i) out.have["pod/namespace-" + std::to_string(i) + "/name"] = std::string(hash_bytes, 'f');
    return encode(out);
  };
  EXPECT_EQ(failure_of_sidecar(hello(20'000, 32)), "accepted");
  EXPECT_NE(failure_of_sidecar(hello(1, resource_hash_bytes + 1)).find("longer than"), std::string::npos);
  EXPECT_NE(failure_of_sidecar(encode(Forget{.names = {std::string(resource_name_bytes + 1, 'x')}})).find("longer than"),
            std::string::npos);
  std::string nodes = R"({"type":"forget","names":[)";
  for (int i = 0; i < 200'000; ++i) nodes += i == 0 ? "1" : ",1";
  EXPECT_NE(failure_of_sidecar(nodes + "]}").find("100000"), std::string::npos);
  const auto long_reason = decode_sidecar_message(encode(Nack{.nonce = 1, .reason = std::string(100'000, 'x')}));
  ASSERT_TRUE(long_reason) << long_reason.error().text();  // cut, not refused: it is for people
  EXPECT_EQ(std::get<Nack>(*long_reason).reason.size(), 4096U);
}

TEST(Mark, ReachesWhatIsNotBeyondIt) {
  const Mark at{.epoch = "e", .versions = {{"pods", 5}, {"nodes", 3}}};
  EXPECT_TRUE(at.reaches(at));
  EXPECT_TRUE(at.reaches({.epoch = "e", .versions = {{"pods", 4}}}));
  EXPECT_TRUE(at.reaches({.epoch = "e", .versions = {{"services", 0}}}));
  EXPECT_FALSE(at.reaches({.epoch = "e", .versions = {{"pods", 6}}}));
  EXPECT_FALSE(at.reaches({.epoch = "e", .versions = {{"services", 1}}}));
  EXPECT_FALSE(Mark{}.reaches(at));
}

TEST(Mark, AdvancesPerKindAndAnotherEpochReplacesIt) {
  Mark at{.epoch = "e", .versions = {{"pods", 5}, {"nodes", 3}}};
  at.advance_to({.epoch = "e", .versions = {{"pods", 4}, {"nodes", 9}, {"services", 1}}});
  EXPECT_EQ(at, (Mark{.epoch = "e", .versions = {{"pods", 5}, {"nodes", 9}, {"services", 1}}}));
  const Mark next{.epoch = "f", .versions = {{"pods", 1}}};
  at.advance_to(next);
  EXPECT_EQ(at, next);
}

TEST(StreamMessages, DeltasAreBounded) {
  Update update{.nonce = 1, .mark = mark, .resources = {}, .removed = {}};
  update.deltas.push_back({"peer-set/ab", "00", "01", {}});
  EXPECT_EQ(failure_of_control(encode(update)), "accepted");
  update.deltas.push_back(update.deltas[0]);
  EXPECT_NE(failure_of_control(encode(update)).find("is there twice"), std::string::npos);
  update.deltas.pop_back();
  update.removed = {"peer-set/ab"};
  EXPECT_NE(failure_of_control(encode(update)).find("is there twice"), std::string::npos);
  update.removed.clear();
  update.resources.push_back(std::make_shared<Resource>(Resource{.name = "peer-set/ab", .hash = "01", .body = "{}"}));
  EXPECT_NE(failure_of_control(encode(update)).find("is there twice"), std::string::npos);
  update.resources.clear();
  update.deltas[0].edits.resize(resource_edits_max + 1);
  EXPECT_NE(failure_of_control(encode(update)).find("more than 1024 edits"), std::string::npos);
  update.deltas[0] = {"peer-set/ab", "", "01", {}};
  EXPECT_NE(failure_of_control(encode(update)), "accepted") << "no base";
}

TEST(StreamMessages, EditsThatDoNotFitNameTheResource) {
  const auto body = edited_body("{}", {"nodes", "00", "01", {{3, 0, "x"}}});
  ASSERT_FALSE(body);
  EXPECT_EQ(body.error().where, "nodes");
}

}  // namespace
}  // namespace postern::test

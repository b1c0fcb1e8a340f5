#include "authz/app_probe.hpp"

#include <gtest/gtest.h>

namespace postern {
namespace {

using Scheme = AppProbe::Scheme;

TEST(AppProbe, IsReadBackAsItIsWritten) {
  const std::pair<const char*, AppProbe> known[] = {
      {"/app-probe/5432", {Scheme::tcp, false, Port{5432}, ""}},
      {"/app-probe/http/8080/", {Scheme::http, false, Port{8080}, "/"}},
      {"/app-probe/https/8443/live?full=1&x=/a", {Scheme::https, false, Port{8443}, "/live?full=1&x=/a"}},
      {"/app-probe/hook/http/80//odd", {Scheme::http, true, Port{80}, "//odd"}},
      {"/app-probe/http/65535/app-probe/http/1/", {Scheme::http, false, Port{65535}, "/app-probe/http/1/"}},
  };
  for (const auto& [text, probe] : known) {
    EXPECT_EQ(text_of(probe), text);
    EXPECT_EQ(parse_app_probe(text), probe) << text;
  }
}

TEST(AppProbe, HasOneSpelling) {
  for (const char* text : {"",
                           "/",
                           "/app-probe",
                           "/app-probe/",
                           "/app-probe/0",
                           "/app-probe/080",
                           "/app-probe/+1",
                           "/app-probe/70000",
                           "/app-probe/1/",
                           "/app-probe/1/x",
                           "/app-probe/1?",
                           "/app-probe/http/80",
                           "/app-probe/http/80?x",
                           "/app-probe/http//x",
                           "/app-probe/http/x/",
                           "/app-probe/HTTP/80/",
                           "/app-probe/hook/80",
                           "/app-probe/hook/hook/http/80/",
                           "/app-probe/http/080/",
                           "app-probe/80"}) {
    EXPECT_FALSE(parse_app_probe(text)) << text;
  }
}

// What Go's http.NewRequest makes of the same, for the kubelet.
TEST(RequestTarget, IsWhatTheKubeletSends) {
  const std::pair<const char*, const char*> known[] = {
      {"/", "/"},
      {"/healthz?full=1&q=a/b?c", "/healthz?full=1&q=a/b?c"},
      {"/a%2Fb/%7Ec", "/a%2Fb/%7Ec"},
      {"/a b\"<>", "/a%20b%22%3C%3E"},
      {"/a?b c", "/a?b%20c"},
      {"/a?x=%zz", "/a?x=%zz"},
      {"/x#fragment?not", "/x"},
      {"/100%?a", "/100%25%3Fa"},
      {"/%zz#x", "/%25zz%23x"},
      {"/a\r\nHost: evil", "/a%0D%0AHost:%20evil"},
      {"/\xc3\xa4", "/%C3%A4"},
      {"/a?", "/a?"},
  };
  for (const auto& [path, target] : known) {
    EXPECT_EQ(request_target(path), target);
    EXPECT_EQ(request_target(target), target) << "a second time changes something";
  }
}

}  // namespace
}  // namespace postern

#include "certs/file_source.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "tests/kit/test_authority.hpp"

namespace postern {
namespace {

namespace fs = std::filesystem;
using std::chrono::seconds;
using test::SvidOptions;
using test::TestAuthority;
using test::TestSvid;
using test::write_file;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr const char* web_id = "spiffe://example.org/ns/default/sa/default/pod/web/7f1c";

class Files : public testing::Test {
 protected:
  Files() {
    std::string pattern = (fs::temp_directory_path() / "postern-files-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp");
    folder = pattern;
  }
  ~Files() override { fs::remove_all(folder); }

  SvidFiles files() const { return {folder / "svid.pem", folder / "svid.key", folder / "bundle.pem"}; }

  void write(const TestSvid& svid, const TestAuthority& authority, const fs::path& where) {
    write_file(where / "bundle.pem", authority.certificate_pem());
    write_file(where / "svid.key", svid.key_pem, 0600);
    write_file(where / "svid.pem", svid.chain_pem);
  }
  void write(const TestSvid& svid) { write(svid, root, folder); }

  // Until poll() has something to say; false after a second of silence.
  static bool changes(FileSource& source) {
    pollfd waiting{source.fd(), POLLIN, 0};
    return ::poll(&waiting, 1, 1000) == 1;
  }
  static std::string serial(const std::optional<Result<X509ContextPtr>>& result) {
    if (!result) return "no change";
    return *result ? (*result).value()->svid.serial : result->error().text();
  }
  static std::string serial(const TestSvid& svid) { return parse_svid(svid.chain_pem, svid.key_pem).value().serial; }

  fs::path folder;
  TestAuthority root = TestAuthority::root("test CA");
};

TEST_F(Files, FirstReadAndThenNothing) {
  const TestSvid svid = root.issue(web_id);
  write(svid);
  auto source = FileSource::make(files());
  ASSERT_TRUE(source) << source.error().text();
  const auto first = (*source)->poll();
  ASSERT_TRUE(first && *first);
  EXPECT_EQ((*first).value()->svid.id.text(), web_id);
  EXPECT_NE((*first).value()->bundles.find("example.org"), nullptr);
  EXPECT_EQ(serial((*source)->poll()), "no change");
  EXPECT_THAT((*source)->take_warnings(), IsEmpty());
}

TEST_F(Files, Rename) {
  write(root.issue(web_id));
  auto source = FileSource::make(files()).value();
  ASSERT_TRUE(source->poll());
  const TestSvid next = root.issue(web_id);
  write(next);
  ASSERT_TRUE(changes(*source));
  EXPECT_EQ(serial(source->poll()), serial(next));
}

TEST_F(Files, WrittenInPlace) {
  write(root.issue(web_id));
  auto source = FileSource::make(files()).value();
  ASSERT_TRUE(source->poll());
  const TestSvid next = root.issue(web_id);
  std::ofstream(files().key) << next.key_pem;
  std::ofstream(files().chain) << next.chain_pem;
  ASSERT_TRUE(changes(*source));
  EXPECT_EQ(serial(source->poll()), serial(next));
}

// A projected volume: every name leads through ..data, which is replaced by one rename.
TEST_F(Files, KubernetesSwapsALink) {
  const TestSvid first = root.issue(web_id);
  fs::create_directory(folder / "..2026_1");
  write(first, root, folder / "..2026_1");
  fs::create_directory_symlink("..2026_1", folder / "..data");
  for (const char* name : {"svid.pem", "svid.key", "bundle.pem"}) fs::create_symlink(fs::path("..data") / name, folder / name);
  auto source = FileSource::make(files()).value();
  EXPECT_EQ(serial(source->poll()), serial(first));

  for (int i = 2; i < 5; ++i) {
    const TestSvid next = root.issue(web_id);
    const std::string version = "..2026_" + std::to_string(i);
    fs::create_directory(folder / version);
    write(next, root, folder / version);
    fs::create_directory_symlink(version, folder / "..data_tmp");
    source->poll();  // the new folder alone changes nothing
    EXPECT_EQ(serial(source->poll()), "no change");
    fs::rename(folder / "..data_tmp", folder / "..data");
    fs::remove_all(folder / ("..2026_" + std::to_string(i - 1)));
    ASSERT_TRUE(changes(*source)) << i;
    EXPECT_EQ(serial(source->poll()), serial(next)) << i;
  }
}

TEST_F(Files, ALinkIntoAnotherFolder) {
  const fs::path elsewhere = folder / "elsewhere";
  const fs::path here = folder / "here";
  fs::create_directories(elsewhere);
  fs::create_directories(here);
  write(root.issue(web_id), root, elsewhere);
  for (const char* name : {"svid.pem", "svid.key", "bundle.pem"}) fs::create_symlink(elsewhere / name, here / name);
  auto source = FileSource::make({here / "svid.pem", here / "svid.key", here / "bundle.pem"}).value();
  ASSERT_TRUE(source->poll());
  const TestSvid next = root.issue(web_id);
  write(next, root, elsewhere);
  ASSERT_TRUE(changes(*source));
  EXPECT_EQ(serial(source->poll()), serial(next));
}

TEST_F(Files, ABadFileIsReportedOnceAndMendedLater) {
  const TestSvid good = root.issue(web_id);
  write(good);
  auto source = FileSource::make(files()).value();
  ASSERT_TRUE(source->poll());

  write_file(files().chain, "rubbish");
  ASSERT_TRUE(changes(*source));
  EXPECT_THAT(serial(source->poll()), HasSubstr("svid.pem (key " + files().key + "): certificate chain: holds no certificate"));
  EXPECT_EQ(serial(source->poll()), "no change");

  write_file(files().chain, good.chain_pem);
  ASSERT_TRUE(changes(*source));
  // The same content as before is news after an error: the caller can say that all is well again.
  EXPECT_EQ(serial(source->poll()), serial(good));
}

TEST_F(Files, EveryFileIsNamed) {
  auto source = FileSource::make(files()).value();
  EXPECT_THAT(serial(source->poll()), HasSubstr("svid.pem: cannot open: No such file"));
  const TestSvid svid = root.issue(web_id);
  write_file(files().chain, svid.chain_pem);
  EXPECT_THAT(serial(source->poll()), HasSubstr("svid.key: cannot open"));
  write_file(files().key, svid.key_pem, 0600);
  EXPECT_THAT(serial(source->poll()), HasSubstr("bundle.pem: cannot open"));
  write_file(files().bundle, svid.chain_pem);
  EXPECT_THAT(serial(source->poll()), HasSubstr("bundle.pem: trust bundle: certificate 1 is not a CA"));
  write_file(files().bundle, TestAuthority::root("other CA").certificate_pem());
  EXPECT_THAT(serial(source->poll()), HasSubstr("does not chain to an authority"));
  write_file(files().bundle, root.certificate_pem());
  EXPECT_EQ(serial(source->poll()), serial(svid));
}

TEST_F(Files, OutOfItsTime) {
  SvidOptions options;
  options.uris = {web_id};
  options.not_before_offset = seconds(-7200);
  options.ttl = seconds(-3600);
  write(root.issue(options));
  auto source = FileSource::make(files()).value();
  EXPECT_THAT(serial(source->poll()), HasSubstr("the SVID has expired at 20"));
  options.not_before_offset = seconds(600);
  options.ttl = seconds(3600);
  write(root.issue(options));
  EXPECT_THAT(serial(source->poll()), HasSubstr("the SVID is valid only from 20"));
}

TEST_F(Files, HalfOfARotationDoesNotReplaceWhatWorks) {
  write(root.issue(web_id));
  auto source = FileSource::make(files()).value();
  ASSERT_TRUE(source->poll());
  const TestSvid next = root.issue(web_id);
  write_file(files().chain, next.chain_pem);
  EXPECT_THAT(serial(source->poll()), HasSubstr("the private key is not that of the first certificate"));
  write_file(files().key, next.key_pem, 0600);
  EXPECT_EQ(serial(source->poll()), serial(next));
}

TEST_F(Files, TooLargeOrNoFileAtAll) {
  const TestSvid svid = root.issue(web_id);
  write(svid);
  write_file(files().key, svid.key_pem + std::string(max_key_bytes, '\n'), 0600);
  auto source = FileSource::make(files()).value();
  EXPECT_THAT(serial(source->poll()), HasSubstr("svid.key: is larger than 65536 bytes"));
  fs::remove(files().key);
  ASSERT_EQ(::mkfifo(files().key.c_str(), 0600), 0);
  EXPECT_THAT(serial(source->poll()), HasSubstr("svid.key: is no regular file"));
}

TEST_F(Files, WarnsOfAKeyThatEverybodyCanRead) {
  const TestSvid svid = root.issue(web_id);
  write(svid);
  write_file(files().key, svid.key_pem, 0644);
  auto source = FileSource::make(files()).value();
  EXPECT_EQ(serial(source->poll()), serial(svid));
  EXPECT_THAT(source->take_warnings(), ElementsAre(HasSubstr("readable by every user")));
  EXPECT_THAT(source->take_warnings(), IsEmpty());
}

TEST_F(Files, NoFolder) {
  const auto source = FileSource::make({folder / "none" / "svid.pem", folder / "svid.key", folder / "bundle.pem"});
  ASSERT_FALSE(source);
  EXPECT_THAT(source.error().text(), HasSubstr("none: cannot watch"));
}

}  // namespace
}  // namespace postern

// postern-test-pki: the test authority as a command, for the demo and the end-to-end tests.
#include <algorithm>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <stdexcept>

#include "tests/kit/test_authority.hpp"

namespace postern::test {
namespace {

constexpr const char* usage = R"(postern-test-pki: certificates for tests and for the demo. Never use it for anything else.

  ca DIR [--name ca] [--trust-domain TD] [--issuer NAME] [--ttl S] [--not-before-offset S] [--path-length N]
      writes DIR/NAME.pem (the trust bundle; with --issuer an intermediate) and DIR/NAME.key
  svid DIR --name NAME --id SPIFFE_ID [--ca ca] [--id SECOND_ID] [--no-san] [--ttl S] [--not-before-offset S]
      [--ca-leaf] [--key-usage TEXT] [--extended-key-usage TEXT] [--dns NAME] [--uid UID]
      writes DIR/NAME.pem (chain) and DIR/NAME.key (mode 0600, owned by UID)

Times are seconds from now; a negative --ttl makes a certificate that has expired. TEXT is as in openssl.cnf; "" leaves it out.
)";

class Arguments {
 public:
  Arguments(int count, char** words) {
    for (int i = 2; i < count; ++i) {
      const std::string word = words[i];
      if (word.rfind("--", 0) != 0) {
        directory_ = word;
      } else if (word == "--no-san" || word == "--ca-leaf") {
        options_.emplace(word, "");
      } else if (i + 1 < count) {
        options_.emplace(word, words[++i]);
      } else {
        throw std::runtime_error(word + " needs a value");
      }
    }
    if (directory_.empty()) throw std::runtime_error("DIR is missing");
  }

  std::string text(const std::string& name, const std::string& fallback) {
    const auto found = options_.find(name);
    if (found == options_.end()) return fallback;
    std::string value = found->second;
    options_.erase(found);
    return value;
  }
  long number(const std::string& name, long fallback) { return std::stol(text(name, std::to_string(fallback))); }
  bool flag(const std::string& name) { return options_.erase(name) > 0; }
  std::vector<std::string> all(const std::string& name) {
    std::vector<std::string> values;
    const auto [first, last] = options_.equal_range(name);
    for (auto it = first; it != last; ++it) values.push_back(it->second);
    options_.erase(name);
    return values;
  }
  std::string path(const std::string& file) const { return directory_ + "/" + file; }
  void expect_no_more() const {
    if (!options_.empty()) throw std::runtime_error("unknown option " + options_.begin()->first);
  }

 private:
  std::string directory_;
  std::multimap<std::string, std::string> options_;
};

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

TestAuthority load_authority(const Arguments& arguments, const std::string& name) {
  return TestAuthority::load(read_file(arguments.path(name + ".pem")), read_file(arguments.path(name + ".key")));
}

void make_authority(Arguments& arguments) {
  const std::string name = arguments.text("--name", "ca");
  const std::string domain = arguments.text("--trust-domain", "");
  const std::string issuer = arguments.text("--issuer", "");
  CaOptions options;
  options.ttl = seconds(arguments.number("--ttl", options.ttl.count()));
  options.not_before_offset = seconds(arguments.number("--not-before-offset", options.not_before_offset.count()));
  options.path_length = static_cast<int>(arguments.number("--path-length", -1));
  arguments.expect_no_more();
  const std::string subject = "test CA " + name + (domain.empty() ? "" : " of " + domain);
  const TestAuthority authority =
      issuer.empty() ? TestAuthority::root(subject, options) : load_authority(arguments, issuer).intermediate(subject, options);
  write_file(arguments.path(name + ".key"), authority.key_pem(), 0600);
  write_file(arguments.path(name + ".pem"), authority.certificate_pem());
}

void make_svid(Arguments& arguments) {
  const std::string name = arguments.text("--name", "");
  if (name.empty()) throw std::runtime_error("--name is missing");
  const TestAuthority authority = load_authority(arguments, arguments.text("--ca", "ca"));
  SvidOptions options;
  options.uris = arguments.all("--id");
  if (arguments.flag("--no-san")) {
    options.uris.clear();
  } else if (options.uris.empty()) {
    throw std::runtime_error("--id is missing (or say --no-san)");
  }
  options.dns = arguments.text("--dns", "");
  options.ttl = seconds(arguments.number("--ttl", options.ttl.count()));
  // An expired certificate began before it ended.
  const long start = std::min<long>(options.not_before_offset.count(), options.ttl.count() - 3600);
  options.not_before_offset =
      seconds(arguments.number("--not-before-offset", options.ttl.count() < 0 ? start : options.not_before_offset.count()));
  options.ca = arguments.flag("--ca-leaf");
  options.key_usage = arguments.text("--key-usage", options.key_usage);
  options.extended_key_usage = arguments.text("--extended-key-usage", options.extended_key_usage);
  const long uid = arguments.number("--uid", -1);
  arguments.expect_no_more();

  const TestSvid svid = authority.issue(options);
  write_file(arguments.path(name + ".key"), svid.key_pem, 0600, uid);
  write_file(arguments.path(name + ".pem"), svid.chain_pem);
}

}  // namespace
}  // namespace postern::test

int main(int argc, char** argv) {
  using namespace postern::test;
  const std::string command = argc > 1 ? argv[1] : "--help";
  try {
    if (command == "--help") {
      std::cout << usage;
      return 0;
    }
    Arguments arguments(argc, argv);
    if (command == "ca") {
      make_authority(arguments);
    } else if (command == "svid") {
      make_svid(arguments);
    } else {
      throw std::runtime_error("unknown command " + command + "; try --help");
    }
  } catch (const std::exception& problem) {
    std::cerr << "postern-test-pki: " << problem.what() << "\n";
    return 1;
  }
  return 0;
}

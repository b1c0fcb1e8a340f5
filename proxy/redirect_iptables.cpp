#include "proxy/redirect_iptables.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <utility>

namespace postern {
namespace {

constexpr std::size_t kMaxOutput = 16U << 20;
constexpr std::string_view kLockSeconds = "30";  // that iptables waits for another run of itself

// A file in memory: the standard input or output of a program, without a pipe that could fill up.
class MemoryFile {
 public:
  MemoryFile() : fd_(memfd_create("postern-redirect", MFD_CLOEXEC)) {}
  ~MemoryFile() {
    if (fd_ >= 0) close(fd_);
  }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  int fd() const { return fd_; }

  bool fill(std::string_view text) {
    while (!text.empty()) {
      const ssize_t n = write(fd_, text.data(), text.size());
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return false;
      text.remove_prefix(static_cast<std::size_t>(n));
    }
    return lseek(fd_, 0, SEEK_SET) == 0;
  }

  std::string content() const {
    std::string text(std::min(static_cast<std::size_t>(std::max<off_t>(lseek(fd_, 0, SEEK_END), 0)), kMaxOutput), '\0');
    std::size_t have = 0;
    while (have < text.size()) {
      const ssize_t n = pread(fd_, text.data() + have, text.size() - have, static_cast<off_t>(have));
      if (n <= 0) break;
      have += static_cast<std::size_t>(n);
    }
    text.resize(have);
    return text;
  }

 private:
  int fd_;
};

std::string one_line(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

// Runs a program with that input and returns what it printed; an error with its words when it fails.
Result<std::string> run(const std::vector<std::string>& arguments, std::string_view input) {
  MemoryFile in;
  MemoryFile out;
  MemoryFile err;
  if (in.fd() < 0 || out.fd() < 0 || err.fd() < 0 || !in.fill(input)) {
    return Error{"no memory for the input of " + arguments[0] + ": " + std::strerror(errno), {}};
  }
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_adddup2(&files, in.fd(), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&files, out.fd(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&files, err.fd(), STDERR_FILENO);
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  pid_t pid = 0;
  const int failed = posix_spawn(&pid, arguments[0].c_str(), &files, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&files);
  if (failed != 0) return Error{arguments[0] + ": " + std::strerror(failed), {}};
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return out.content();
  const std::string how =
      WIFEXITED(status) ? "exit status " + std::to_string(WEXITSTATUS(status)) : "ended by signal " + std::to_string(WTERMSIG(status));
  const std::string said = one_line(err.content());
  return Error{arguments[0] + ": " + how + (said.empty() ? "" : ": " + said), {}};
}

bool executable(const std::string& path) { return access(path.c_str(), X_OK) == 0; }

std::vector<std::string> program_folders() {
  std::vector<std::string> folders;
  const char* path = std::getenv("PATH");
  std::string_view rest = path == nullptr ? std::string_view{} : std::string_view{path};
  while (!rest.empty()) {
    const auto end = std::min(rest.find(':'), rest.size());
    // Only absolute ones: what runs as root must not depend on the current folder.
    if (rest.starts_with('/')) folders.emplace_back(rest.substr(0, end));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  for (const char* usual : {"/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin"}) folders.emplace_back(usual);
  return folders;
}

}  // namespace

Result<Iptables> Iptables::at(const std::string& path) {
  const auto slash = path.rfind('/');
  Iptables found;
  found.folder_ = slash == std::string::npos ? "" : path.substr(0, slash);
  found.name_ = slash == std::string::npos ? path : path.substr(slash + 1);
  if (!path.starts_with('/') || !found.name_.starts_with("iptables")) {
    return Error{"--iptables '" + path + "': expected the absolute path of an iptables program, such as /usr/sbin/iptables-nft", {}};
  }
  for (const std::string_view suffix : {"-save", "-restore"}) {
    if (const std::string beside = found.program(IpFamily::v4, suffix); !executable(beside)) {
      return Error{"--iptables '" + path + "': there is no program " + beside, {}};
    }
  }
  return found;
}

std::vector<Iptables> Iptables::installed() {
  const auto look = [](const std::string& name) -> std::vector<Iptables> {
    for (const std::string& folder : program_folders()) {
      if (auto found = at(folder + "/" + name)) return {std::move(*found)};
    }
    return {};
  };
  std::vector<Iptables> found = look("iptables-nft");
  for (Iptables& legacy : look("iptables-legacy")) found.push_back(std::move(legacy));
  return found.empty() ? look("iptables") : found;
}

std::string Iptables::program(IpFamily family, std::string_view suffix) const {
  const std::string name = family == IpFamily::v4 ? name_ : "ip6" + name_.substr(2);
  return folder_ + "/" + name + std::string(suffix);
}

Result<std::string> Iptables::save(IpFamily family) const { return run({program(family, "-save"), "-t", "nat"}, {}); }

Result<void> Iptables::restore(IpFamily family, std::string_view transaction) const {
  const auto done = run({program(family, "-restore"), "--noflush", "--wait", std::string(kLockSeconds)}, transaction);
  if (!done) return done.error();
  return {};
}

bool Iptables::may_hold_rules(IpFamily family) const {
  if (name_.find("legacy") == std::string::npos) return true;
  std::ifstream tables(family == IpFamily::v4 ? "/proc/net/ip_tables_names" : "/proc/net/ip6_tables_names");
  for (std::string table; std::getline(tables, table);) {
    if (table == "nat") return true;
  }
  return false;
}

Ipv6Use ipv6_use() {
  Ipv6Use use;
  // Address, index, prefix length, scope, flags, name; all but the name in hexadecimal (net/ipv6/addrconf.c, if6_seq_show).
  std::ifstream addresses("/proc/net/if_inet6");
  std::string address, index, prefix, scope, flags, name;
  while (addresses >> address >> index >> prefix >> scope >> flags >> name) {
    use.any = true;
    if (scope == "00") use.routable = true;
  }
  return use;
}

}  // namespace postern

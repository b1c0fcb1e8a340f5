#include "certs/watched_files.hpp"

#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>

namespace postern {
namespace {

Error cannot_watch(const std::string& what) { return Error{std::string("cannot watch: ") + std::strerror(errno), what}; }

constexpr std::uint32_t watched_events = IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_ATTRIB | IN_ONLYDIR;

// A link anywhere on the way to a file is swapped in the folder that the link is in.
void watch_links(int fd, const std::filesystem::path& path, int links_followed = 0) {
  constexpr int links_max = 8;
  std::filesystem::path at;
  for (const std::filesystem::path& part : path) {
    const std::filesystem::path folder = at.empty() ? "." : at;
    at /= part;
    std::error_code error;
    const std::filesystem::path target = std::filesystem::read_symlink(at, error);
    if (error) continue;  // no link
    ::inotify_add_watch(fd, folder.c_str(), watched_events);
    if (links_followed < links_max) watch_links(fd, folder / target, links_followed + 1);
  }
}

}  // namespace

Result<WatchedFiles> WatchedFiles::make(std::vector<std::string> paths) {
  Descriptor fd(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  if (fd.get() < 0) return Error{std::string("cannot watch files: ") + std::strerror(errno), "inotify"};
  WatchedFiles made(std::move(paths), std::move(fd));
  if (auto watched = made.renew(); !watched) return watched.error();
  return made;
}

// Folders, not files: a rename or a swapped link puts another file in the place of the watched one. The folder of the name, that of
// the file it leads to, and those of the links in between.
Result<void> WatchedFiles::renew() {
  for (const std::string& path : paths_) {
    std::filesystem::path folder = std::filesystem::path(path).parent_path();
    if (folder.empty()) folder = ".";
    if (::inotify_add_watch(fd_.get(), folder.c_str(), watched_events) < 0) return cannot_watch(folder.string());
    std::error_code missing;
    const std::filesystem::path target = std::filesystem::canonical(path, missing);
    // Only where it leads elsewhere; a target that is not there (yet) shows up in the first folder.
    if (!missing && target.parent_path() != folder) ::inotify_add_watch(fd_.get(), target.parent_path().c_str(), watched_events);
    watch_links(fd_.get(), path);
  }
  return {};
}

void WatchedFiles::drain() const {
  alignas(inotify_event) std::array<char, 4096> buffer;
  while (::read(fd_.get(), buffer.data(), buffer.size()) > 0 || errno == EINTR) {
  }
}

bool WatchedFiles::has_events() const {
  pollfd waiting{fd_.get(), POLLIN, 0};
  return ::poll(&waiting, 1, 0) > 0;
}

}  // namespace postern

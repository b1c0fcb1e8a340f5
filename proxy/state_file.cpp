#include "proxy/state_file.hpp"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/descriptor.hpp"

namespace postern {

namespace {

Error errno_error(std::string_view what, const std::string& path) { return Error{std::string(what) + ": " + std::strerror(errno), path}; }

}  // namespace

Result<std::optional<std::string>> read_state_file(const std::string& folder, std::string_view name, std::size_t most) {
  const std::string path = folder + "/" + std::string(name);
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (file.get() < 0 && errno == ENOENT) return std::optional<std::string>();
  if (file.get() < 0) return errno_error("cannot be opened", path);
  struct stat status {};
  if (fstat(file.get(), &status) != 0) return errno_error("cannot be read", path);
  if (!S_ISREG(status.st_mode)) return Error{"not a regular file", path};
  if (status.st_uid != geteuid() || (status.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    return Error{"others than its owner may touch it; expected mode 0600 and this process's user as owner", path};
  }
  if (static_cast<std::size_t>(status.st_size) > most) return Error{"too long", path};
  std::string bytes(static_cast<std::size_t>(status.st_size), '\0');
  std::size_t got = 0;
  while (got < bytes.size()) {
    const ssize_t n = ::read(file.get(), bytes.data() + got, bytes.size() - got);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno_error("cannot be read", path);
    if (n == 0) break;
    got += static_cast<std::size_t>(n);
  }
  bytes.resize(got);
  return std::optional<std::string>(std::move(bytes));
}

Result<void> write_state_file(const std::string& folder, std::string_view name, std::string_view bytes) {
  const std::string path = folder + "/" + std::string(name);
  const std::string temporary = path + ".new";
  ::unlink(temporary.c_str());  // of a process that was killed while it wrote
  {
    const Descriptor file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (file.get() < 0) return errno_error("cannot be created", temporary);
    while (!bytes.empty()) {
      const ssize_t n = ::write(file.get(), bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) {
        Error error = errno_error("cannot be written", temporary);
        ::unlink(temporary.c_str());
        return error;
      }
      bytes.remove_prefix(static_cast<std::size_t>(n));
    }
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) return errno_error("cannot be replaced", path);
  return {};
}

bool is_memory_backed(const std::string& folder) {
  struct statfs status {};
  if (statfs(folder.c_str(), &status) != 0) return false;
  return status.f_type == TMPFS_MAGIC || status.f_type == RAMFS_MAGIC;
}

}  // namespace postern

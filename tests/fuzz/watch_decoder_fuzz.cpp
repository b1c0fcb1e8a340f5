// What an API server sends: a watch or a list, split anywhere. However it is split, the same comes out; and whatever is called an object
// can only be read or refused. The first byte says which, and where the split is.
#include "control/watch_decoder.hpp"

#include <cstdint>
#include <cstdlib>

#include "control/kube_objects.hpp"

namespace {

using namespace postern;

constexpr std::size_t kBytes = 4096;

struct Outcome {
  bool ok = true;
  std::vector<std::string> objects;
  bool operator==(const Outcome&) const = default;
};

Outcome watch(std::string_view first, std::string_view second) {
  WatchDecoder decoder(kBytes);
  std::vector<WatchLine> lines;
  Outcome out;
  out.ok = decoder.feed(first, lines) && decoder.feed(second, lines);
  for (const WatchLine& line : lines) {
    if (line.object.empty() || line.object.size() > kBytes) std::abort();
    out.objects.push_back(line.object);
  }
  return out;
}

Outcome list(std::string_view first, std::string_view second) {
  Outcome out;
  ListDecoder decoder(
      [&](std::string_view item) {
        if (item.size() > kBytes || !item.starts_with('{')) std::abort();
        out.objects.emplace_back(item);
        return Result<void>();
      },
      kBytes);
  out.ok = decoder.feed(first) && decoder.feed(second) && decoder.finish();
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const bool is_watch = (data[0] & 1U) != 0;
  const std::size_t at = text.empty() ? 0 : (data[0] >> 1U) % text.size();
  const auto run = is_watch ? watch : list;
  const Outcome whole = run(text, {});
  if (whole != run(text.substr(0, at), text.substr(at))) std::abort();
  for (const std::string& object : whole.objects) {
    const auto node = parse_object(WatchedKind::pods, object, "fuzz");
    if (node) (void)identity_of(*node);
    if (!node && node.error().message.empty()) std::abort();
    (void)decode_status(object);
  }
  return 0;
}

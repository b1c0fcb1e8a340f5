// WatchDecoder and ListDecoder: the bytes of the API server's answers in, objects out. No I/O. What a server can make them hold is bounded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.hpp"

namespace postern {

// etcd takes objects of at most 1.5 MiB (--max-request-bytes) in their binary form; as JSON they may be several times as long.
inline constexpr std::size_t object_bytes_max = 12U << 20;

// One line of a watch: {"type":"ADDED","object":{...}}
struct WatchLine {
  enum class Type : std::uint8_t { added, modified, deleted, bookmark, error };
  Type type = Type::added;
  std::string object;  // JSON
};

// The answer to ?watch=1: one JSON object per line. Cuts the stream into lines and each line into type and object; the object is parsed by
// its reader.
class WatchDecoder {
 public:
  explicit WatchDecoder(std::size_t line_bytes_max = object_bytes_max) : line_bytes_max_(line_bytes_max) {}

  // Appends the events that `bytes` complete to `out`. After an error the stream means nothing any more.
  Result<void> feed(std::string_view bytes, std::vector<WatchLine>& out);
  // Whether the stream may end here: not within a line.
  bool at_boundary() const { return line_.empty(); }

 private:
  std::size_t line_bytes_max_;
  std::string line_;  // its beginning, where it is not complete
};

// The answer to a list: {"kind":"PodList","metadata":{...},"items":[{...},...]}. Hands out each item's JSON as soon as it is complete.
class ListDecoder {
 public:
  using Item = std::function<Result<void>(std::string_view json)>;  // an error ends the decoding
  explicit ListDecoder(Item on_item, std::size_t item_bytes_max = object_bytes_max)
      : on_item_(std::move(on_item)), item_bytes_max_(item_bytes_max) {}

  Result<void> feed(std::string_view bytes);

  struct End {
    std::uint64_t version = 0;   // metadata.resourceVersion
    std::string continue_token;  // metadata.continue; empty: the list is complete
  };
  // After the last byte. An error where the list is not complete.
  Result<End> finish();

 private:
  enum class State : std::uint8_t { start, outside, items, between, item, done };
  Result<void> step(char c);

  Item on_item_;
  std::size_t item_bytes_max_;
  State state_ = State::start;
  std::size_t depth_ = 0;       // of brackets, outside the items
  std::size_t item_depth_ = 0;  // and within one
  std::size_t key_begin_ = 0;   // where in rest_ the latest string began
  bool in_string_ = false;
  bool escaped_ = false;
  bool expects_key_ = false;
  bool had_items_ = false;
  bool after_comma_ = false;
  std::string rest_;  // the list without its items
  std::string key_;   // of the list's own fields, the latest, with its quotes
  std::string item_;
};

// What one Status says (of a refusal, or of a watch's ERROR).
struct ApiStatus {
  unsigned code = 0;
  std::string reason;
  std::string message;
};
ApiStatus decode_status(std::string_view json);

}  // namespace postern

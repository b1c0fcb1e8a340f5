#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <cstdint>
#include <sstream>
#include <unordered_map>
#include <utility>

#include "base/document_builder.hpp"
#include "base/yaml_scalar.hpp"

namespace postern {
namespace {

// Leaves yaml-cpp's parser once the builder has refused an event.
struct Refused {};

// Feeds the builder with the events of one YAML document. Events are recorded from the first anchor on, and an alias repeats the
// recorded ones: so whatever an alias expands to is counted against the limits as if it had been written out.
class YamlEvents : public YAML::EventHandler {
 public:
  YamlEvents(DocumentBuilder& builder, int first_line) : builder_(builder), first_line_(first_line) {}

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (ended_) refuse(position(mark), "text after the end of the document; separate documents with ---");
  }
  void OnDocumentEnd() override { ended_ = true; }

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { OnScalar(mark, "?", anchor, ""); }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, const std::string& value) override {
    Event event(Event::Type::scalar, position(mark));
    if (tag == "?" && value == "<<" && builder_.expects_key()) {
      refuse(event.at, "merge keys (<<) are not supported; write the fields out");
    }
    const std::string fault = type_tagged_scalar(tag, value, event.scalar);
    if (!fault.empty()) refuse(event.at, fault);
    event.scalar.line = event.at.line;
    event.scalar.column = event.at.column;
    take(std::move(event), anchor);
    if (anchor != YAML::NullAnchor) anchors_[anchor] = {events_.size() - 1, events_.size()};
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YAML::EmitterStyle::value) override {
    begin(Event::Type::begin_sequence, mark, tag, "tag:yaml.org,2002:seq", anchor);
  }
  void OnSequenceEnd() override { end(); }

  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, YAML::EmitterStyle::value) override {
    begin(Event::Type::begin_mapping, mark, tag, "tag:yaml.org,2002:map", anchor);
  }
  void OnMapEnd() override { end(); }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    Event event(Event::Type::alias, position(mark));
    event.anchor = anchor;
    take(std::move(event), YAML::NullAnchor);
  }

  [[noreturn]] void refuse(TextPosition at, std::string message) {
    builder_.refuse(at, std::move(message));
    throw Refused{};
  }

  TextPosition position(const YAML::Mark& mark) const {
    return mark.is_null() ? TextPosition{first_line_, 1} : TextPosition{first_line_ + mark.line, mark.column + 1};
  }

 private:
  struct Event {
    enum class Type : std::uint8_t { scalar, alias, begin_sequence, begin_mapping, end };
    Event(Type t, TextPosition where) : type(t), at(where) {}
    Type type;
    TextPosition at;
    Node scalar;
    YAML::anchor_t anchor = YAML::NullAnchor;  // of an alias
  };
  struct Range {
    std::size_t begin = 0;
    std::size_t end = 0;  // 0: still open
  };

  void begin(Event::Type type, const YAML::Mark& mark, const std::string& tag, const char* own_tag, YAML::anchor_t anchor) {
    Event event(type, position(mark));
    if (!tag.empty() && tag != "?" && tag != "!" && tag != own_tag)
      refuse(event.at, "the tag \"" + tag + "\" is not supported; leave it out");
    take(std::move(event), anchor);
    open_anchors_.push_back(anchor);
    if (anchor != YAML::NullAnchor) anchors_[anchor] = {events_.size() - 1, 0};
  }

  void end() {
    take(Event(Event::Type::end, {}), YAML::NullAnchor);
    const YAML::anchor_t anchor = open_anchors_.back();
    open_anchors_.pop_back();
    if (anchor != YAML::NullAnchor) anchors_[anchor].end = events_.size();
  }

  void take(Event event, YAML::anchor_t anchor) {
    apply(event);
    recording_ = recording_ || anchor != YAML::NullAnchor;
    if (recording_) events_.push_back(std::move(event));
  }

  void apply(const Event& event) {
    bool ok = true;
    switch (event.type) {
      case Event::Type::scalar: ok = apply_scalar(event); break;
      case Event::Type::alias: repeat(event); break;
      case Event::Type::begin_sequence: ok = builder_.begin(Node::Kind::sequence, event.at); break;
      case Event::Type::begin_mapping: ok = builder_.begin(Node::Kind::mapping, event.at); break;
      case Event::Type::end: ok = builder_.end(); break;
    }
    if (!ok) throw Refused{};
  }

  bool apply_scalar(const Event& event) {
    if (!builder_.expects_key()) return builder_.value(event.scalar);
    std::string key;
    if (!key_text(event.scalar, key)) {
      refuse(event.at, "a key must be a string, not " + std::string(name_of(event.scalar.kind)) + "; put it in quotes");
    }
    return builder_.key(std::move(key), event.at);
  }

  // The recursion is as deep as the document at most: an anchor cannot stand on an alias, only around it.
  void repeat(const Event& alias) {
    const auto found = anchors_.find(alias.anchor);
    if (found == anchors_.end() || found->second.end == 0) refuse(alias.at, "an alias to what it is part of");
    for (std::size_t i = found->second.begin; i < found->second.end; ++i) apply(events_[i]);
  }

  DocumentBuilder& builder_;
  int first_line_;
  bool ended_ = false;
  bool recording_ = false;
  std::vector<Event> events_;
  std::vector<YAML::anchor_t> open_anchors_;  // of each open collection
  std::unordered_map<YAML::anchor_t, Range> anchors_;
};

// Cuts off the text up to the next "---" line, which begins a document wherever it stands (YAML 1.2 section 9.1.2). The parser sees
// one document at a time, so that nothing left over by one can be taken for another.
std::string_view take_document(std::string_view& text) {
  std::size_t line = 0;
  while (true) {
    line = text.find('\n', line);
    if (line == std::string_view::npos) return std::exchange(text, {});
    ++line;
    const std::string_view rest = text.substr(line);
    if (!rest.starts_with("---")) continue;
    if (rest.size() > 3 && rest[3] != '\n' && rest[3] != '\r' && rest[3] != ' ' && rest[3] != '\t') continue;
    const std::string_view document = text.substr(0, line);
    text.remove_prefix(line);
    return document;
  }
}

// The one document of `text`; null when it holds none.
Result<Node> parse_one(std::string_view text, int first_line, DocumentBuilder& builder) {
  YamlEvents events(builder, first_line);
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(events)) {  // a second one is refused by OnDocumentStart
    }
    return builder.take();
  } catch (const Refused&) {
    return builder.error();
  } catch (const YAML::Exception& e) {
    builder.refuse(events.position(e.mark), "not YAML: " + e.msg);
    return builder.error();
  }
}

}  // namespace

Result<std::vector<Document>> parse_yaml(std::string_view text, std::string_view source, const DocumentLimits& limits) {
  if (const auto checked = check_text(text, source, limits); !checked) return checked.error();
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);  // a byte order mark
  std::vector<Document> documents;
  DocumentBuilder builder(source, limits);
  std::size_t pieces = 0;
  for (int line = 1; !text.empty();) {
    if (++pieces > limits.documents) {
      return Error{"more than " + std::to_string(limits.documents) + " documents", where_text(source, {line, 1})};
    }
    const std::string_view piece = take_document(text);
    auto root = parse_one(piece, line, builder);
    if (!root) return root.error();
    if (!root->is(Node::Kind::null)) documents.push_back({std::string(source), *std::move(root)});
    line += static_cast<int>(std::count(piece.begin(), piece.end(), '\n'));
  }
  return documents;
}

}  // namespace postern

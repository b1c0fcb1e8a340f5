// A JSON document as people read it: indented, or as tables.
#pragma once

#include <string>

#include "base/document.hpp"

namespace postern::cli {

// Indented by two, in the order of the document, with a newline at the end.
std::string indented(const Node& node);

// A list of objects becomes a table, one column per field; an object its fields, one per line, with the lists of objects in
// it as tables below. Control characters stay escaped: no name of a peer can move the cursor.
std::string tabulated(const Node& node);

}  // namespace postern::cli

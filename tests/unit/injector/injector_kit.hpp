// What the injector's tests share.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "base/document_writer.hpp"
#include "control/injection_settings.hpp"
#include "control/json_patch.hpp"

namespace postern {

inline InjectionSettings test_settings() {
  InjectionSettings settings;
  settings.trust_domain = *TrustDomain::parse("cluster.local");
  settings.trust_roots = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
  return settings;
}

// A pod of that spec, in YAML of two spaces.
inline Node pod_of(const std::string& spec) {
  auto documents = parse_yaml("apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec:\n  " + spec + "\n", "test");
  EXPECT_TRUE(documents) << documents.error().text();
  return std::move(documents->front().root);
}

// As an API server applies a patch (RFC 6902), for the operations and paths that ours have.
inline Node applied(Node object, const std::vector<PatchOperation>& patch) {
  for (const PatchOperation& operation : patch) {
    std::vector<std::string> keys;
    for (std::size_t at = 0; at < operation.path.size();) {
      const std::size_t end = std::min(operation.path.find('/', at + 1), operation.path.size());
      std::string key = operation.path.substr(at + 1, end - at - 1);
      for (const auto& [code, sign] : {std::pair{"~1", "/"}, std::pair{"~0", "~"}}) {
        for (std::size_t found = key.find(code); found != std::string::npos; found = key.find(code, found + 1)) key.replace(found, 2, sign);
      }
      keys.push_back(std::move(key));
      at = end;
    }
    if (keys.empty()) {
      object = operation.value;
      continue;
    }
    Node* node = &object;
    for (std::size_t i = 0; i + 1 < keys.size(); ++i) {
      node = node->is(Node::Kind::sequence) ? &node->items.at(std::stoul(keys[i])) : &field_of(*node, keys[i]);
    }
    const std::string& last = keys.back();
    if (!node->is(Node::Kind::sequence)) {
      if (operation.kind == PatchOperation::Kind::remove) {
        remove_field(*node, last);
      } else {
        field_of(*node, last) = operation.value;
      }
    } else if (operation.kind == PatchOperation::Kind::replace) {
      node->items.at(std::stoul(last)) = operation.value;
    } else {
      node->items.insert(last == "-" ? node->items.end() : node->items.begin() + std::stol(last), operation.value);
    }
  }
  return object;
}

}  // namespace postern

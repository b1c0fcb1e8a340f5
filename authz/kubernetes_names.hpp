// The rules of Kubernetes for names, labels and port names (apimachinery, util/validation), in its own words.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace postern {

// Each returns what is wrong with `text`; empty when nothing is.
using NameFaults = std::vector<std::string>;

NameFaults label_key_faults(std::string_view text);      // IsQualifiedName: [<DNS subdomain>/]<name>
NameFaults label_value_faults(std::string_view text);    // IsValidLabelValue
NameFaults dns_label_faults(std::string_view text);      // IsDNS1123Label: namespaces
NameFaults dns_subdomain_faults(std::string_view text);  // IsDNS1123Subdomain: pods, policies, service accounts
NameFaults port_name_faults(std::string_view text);      // IsValidPortName: RFC 6335

}  // namespace postern

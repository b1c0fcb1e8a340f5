// posternctl certificate: explains a certificate against the rules that sidecars hold each other to, one by one.
#include <fstream>
#include <iostream>
#include <optional>
#include <string>

#include "base/json_writer.hpp"
#include "base/log.hpp"
#include "certs/private_key.hpp"
#include "certs/verify.hpp"
#include "cli/command.hpp"

namespace postern::cli {
namespace {

using Outcome = RuleResult::Outcome;

constexpr std::string_view command_name = "certificate";

Result<std::string> read_pem(std::string_view path) {
  std::ifstream file{std::string(path), std::ios::binary};
  std::string text(max_pem_bytes + 1, '\0');
  if (!file || (!file.read(text.data(), static_cast<std::streamsize>(text.size())) && !file.eof()))
    return Error{"cannot be read", std::string(path)};
  text.resize(static_cast<std::size_t>(file.gcount()));
  return text;
}

// The bundle that was given, as that of `domain`. Nothing: none was given.
Result<std::optional<TrustBundleSet>> read_bundle(const Arguments& arguments, std::string_view own_domain) {
  if (!arguments.has("--bundle")) return std::optional<TrustBundleSet>();
  const std::string_view path = *arguments.get("--bundle");
  const auto pem = read_pem(path);
  if (!pem) return pem.error();
  auto domain = TrustDomain::parse(arguments.get("--trust-domain", own_domain));
  if (!domain && !arguments.has("--trust-domain")) return std::optional<TrustBundleSet>();  // the SPIFFE ID names none
  if (!domain) return Error{domain.error().message, "--trust-domain"};
  auto bundle = TrustBundle::parse(*pem, *std::move(domain));
  if (!bundle) return Error{bundle.error().message, std::string(path)};
  TrustBundleSet bundles;
  bundles.add(*std::move(bundle));
  return std::optional<TrustBundleSet>(std::move(bundles));
}

// Whether the key is that of the leaf. Nothing: none was given.
Result<std::optional<bool>> read_key(const Arguments& arguments, X509* leaf) {
  if (!arguments.has("--key")) return std::optional<bool>();
  const std::string_view path = *arguments.get("--key");
  auto pem = read_pem(path);
  if (!pem) return pem.error();
  const auto key = parse_private_key(*pem);
  OPENSSL_cleanse(pem->data(), pem->size());
  if (!key) return Error{key.error().message, std::string(path)};
  return std::optional<bool>(is_key_of(leaf, key->get()));
}

struct Report {
  std::string_view file;
  std::string spiffe_id;  // empty: it has none
  std::string serial;
  std::string not_before;
  std::string not_after;
  std::vector<RuleResult> rules;
  std::optional<bool> key_matches;
  bool trust_asked = false;

  const RuleResult* first_fault() const {
    for (const RuleResult& result : rules) {
      if (result.outcome == Outcome::failed) return &result;
    }
    return nullptr;
  }
  bool accepted() const { return first_fault() == nullptr && key_matches.value_or(true); }
};

std::string_view word_of(Outcome outcome) {
  switch (outcome) {
    case Outcome::passed: return "pass";
    case Outcome::failed: return "FAIL";
    case Outcome::not_checked: return "-";
  }
  return "";
}

// A name inside a certificate is anybody's text: nothing of it can move the cursor.
std::string escaped(std::string_view text) {
  std::string out;
  append_json_string(out, text);
  return out.substr(1, out.size() - 2);
}

std::string padded(std::string_view text, std::size_t width) {
  return std::string(text) + std::string(text.size() < width ? width - text.size() : 1, ' ');
}

void print_table(const Report& report) {
  std::cout << "SPIFFE ID   " << (report.spiffe_id.empty() ? "none" : report.spiffe_id) << "\nserial      " << report.serial
            << "\nvalid from  " << report.not_before << "\nvalid until " << report.not_after << "\n\n";
  const auto rules = certificate_rules();
  for (std::size_t i = 0; i < rules.size(); ++i) {
    const RuleResult& result = report.rules[i];
    std::cout << padded(word_of(result.outcome), 6) << padded(rules[i].name, 28) << padded(rules[i].section, 32) << rules[i].rule;
    if (!result.detail.empty()) std::cout << ": " << escaped(result.detail);
    std::cout << "\n";
  }
  if (report.key_matches) std::cout << padded(*report.key_matches ? "pass" : "FAIL", 6) << "the private key is that of the leaf\n";
  std::cout << "\n" << report.file << ": ";
  if (const RuleResult* fault = report.first_fault()) {
    std::cout << "refused (" << name_of(fault->rule) << "): " << describe(fault->rule);
    if (!fault->detail.empty()) std::cout << ": " << escaped(fault->detail);
    std::cout << "\n";
  } else if (!report.accepted()) {
    std::cout << "refused: the private key is another one's\n";
  } else {
    std::cout << (report.trust_asked ? "accepted\n" : "a valid X509-SVID; whom it is trusted by was not asked (--bundle)\n");
  }
}

void print_json(const Report& report) {
  JsonWriter json;
  json.begin_object().field("file", report.file).field("accepted", report.accepted());
  const RuleResult* fault = report.first_fault();
  json.text("error", fault == nullptr ? std::string_view() : name_of(fault->rule));
  json.text("spiffe_id", report.spiffe_id).field("serial", report.serial);
  json.field("not_before", report.not_before).field("not_after", report.not_after);
  json.field("trust_asked", report.trust_asked);
  if (report.key_matches) json.field("key_matches", *report.key_matches);
  json.key("rules").begin_array();
  const auto rules = certificate_rules();
  for (std::size_t i = 0; i < rules.size(); ++i) {
    const RuleResult& result = report.rules[i];
    json.begin_object().field("name", rules[i].name).field("section", rules[i].section).field("rule", rules[i].rule);
    json.field("outcome", result.outcome == Outcome::passed ? "pass" : result.outcome == Outcome::failed ? "fail" : "not_checked");
    json.text("detail", result.detail).end_object();
  }
  std::cout << json.end_array().end_object().take() << "\n";
}

Result<TlsEnd> end_of(const Arguments& arguments) {
  const std::string_view end = arguments.get("--end", "both");
  if (end == "both") return TlsEnd::both;
  if (end == "client") return TlsEnd::client;
  if (end == "server") return TlsEnd::server;
  return Error{"expected client, server or both", "--end"};
}

int run(const Arguments& arguments) {
  if (arguments.positionals().size() != 2 || arguments.positionals().front() != "verify") {
    return bad_input(command_name, Error{"expected: certificate verify FILE [--bundle FILE]", {}});
  }
  const std::string_view output = arguments.get("--output", "table");
  if (output != "json" && output != "table") return bad_input(command_name, {"expected json or table", "--output"});
  const auto end = end_of(arguments);
  if (!end) return bad_input(command_name, end.error());
  Report report;
  report.file = arguments.positionals()[1];
  const auto pem = read_pem(report.file);
  if (!pem) return bad_input(command_name, pem.error());
  const auto chain = parse_certificates_pem(*pem, 4 * max_chain_length);  // one too many is a rule of its own
  if (!chain) return bad_input(command_name, Error{chain.error().message, std::string(report.file)});

  X509* const leaf = chain->front().get();
  bool malformed = false;
  const auto uris = uri_sans(leaf, &malformed);
  const auto id = uris.size() == 1 ? SpiffeId::parse(uris.front()) : Result<SpiffeId>(Error{"none", {}});
  const auto bundles = read_bundle(arguments, id ? id->trust_domain() : std::string_view());
  if (!bundles) return bad_input(command_name, bundles.error());
  const auto key = read_key(arguments, leaf);
  if (!key) return bad_input(command_name, key.error());
  if (id) report.spiffe_id = id->text();
  report.serial = serial_of(leaf) ? *serial_of(leaf) : "unreadable";
  report.not_before = not_before_of(leaf) ? utc_text(*not_before_of(leaf)) : "unreadable";
  report.not_after = not_after_of(leaf) ? utc_text(*not_after_of(leaf)) : "unreadable";
  report.key_matches = *key;
  report.trust_asked = bundles->has_value();
  report.rules =
      explain_svid(*chain, bundles->has_value() ? &**bundles : nullptr, *end, std::chrono::system_clock::now(), std::chrono::seconds{0});
  if (output == "json") {
    print_json(report);
  } else {
    print_table(report);
  }
  return report.accepted() ? exit_ok : exit_failed;
}

}  // namespace

Command certificate_command() {
  return {
      .name = command_name,
      .summary = "explain a certificate by the rules of X509-SVID, one by one",
      .description =
          "certificate verify FILE checks a PEM chain (leaf first) by the rules that sidecars hold each other to, and its validity now, "
          "and\n"
          "says of each rule whether it passes, with its section; with --bundle also that it chains to an authority of its own trust "
          "domain.\n"
          "'-' is a rule that could not be asked, because of another one or without --bundle. Exit 0: accepted, 1: refused, 2: unreadable.",
      .options = {{"--bundle", "FILE", "the trust bundle (PEM)"},
                  {"--trust-domain", "NAME", "the trust domain whose bundle it is; that of the certificate"},
                  {"--key", "FILE", "the private key (PEM): is it that of the leaf?"},
                  {"--end", "END", "which end of TLS it is for: client, server or both; both"},
                  {"--output", "FORMAT", "json or table"}},
      .positionals = "verify FILE",
      .most_positionals = 2,
      .run = run};
}

}  // namespace postern::cli

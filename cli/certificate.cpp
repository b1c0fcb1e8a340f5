// posternctl certificate: would a sidecar accept this certificate, and if not, which rule of X509-SVID does it break?
#include <fstream>
#include <iostream>
#include <string>

#include "certs/verify.hpp"
#include "cli/command.hpp"

namespace postern::cli {
namespace {

constexpr std::string_view command_name = "certificate";

Result<std::string> read_pem(std::string_view path) {
  std::ifstream file{std::string(path), std::ios::binary};
  std::string text(max_pem_bytes + 1, '\0');
  if (!file || (!file.read(text.data(), static_cast<std::streamsize>(text.size())) && !file.eof()))
    return Error{"cannot be read", std::string(path)};
  text.resize(static_cast<std::size_t>(file.gcount()));
  return text;
}

int refused(std::string_view path, CertificateError error, std::string_view detail) {
  std::cout << path << ": refused (" << name_of(error) << "): " << describe(error);
  if (!detail.empty()) std::cout << ": " << detail;
  std::cout << "\n";
  return exit_failed;
}

int run(const Arguments& arguments) {
  if (arguments.positionals().size() != 2 || arguments.positionals().front() != "verify") {
    return bad_input(command_name, Error{"expected: certificate verify FILE [--bundle FILE]", {}});
  }
  const std::string_view path = arguments.positionals()[1];
  const auto pem = read_pem(path);
  if (!pem) return bad_input(command_name, pem.error());
  const auto chain = parse_certificates_pem(*pem, max_chain_length);
  if (!chain) return bad_input(command_name, Error{chain.error().message, std::string(path)});

  X509* const leaf = chain->front().get();
  const LeafCheck rules = check_leaf(leaf, TlsEnd::both);
  if (rules.error != CertificateError::none) return refused(path, rules.error, rules.detail);
  const auto not_before = not_before_of(leaf);
  const auto not_after = not_after_of(leaf);
  const auto serial = serial_of(leaf);
  if (!not_before || !not_after || !serial) return refused(path, CertificateError::malformed, "");
  std::cout << "SPIFFE ID   " << rules.id.text() << "\nserial      " << *serial << "\nvalid from  " << utc_text(*not_before)
            << "\nvalid until " << utc_text(*not_after) << "\n";

  const SystemTime now = std::chrono::system_clock::now();
  if (now < *not_before) return refused(path, CertificateError::not_yet_valid, "");
  if (now >= *not_after) return refused(path, CertificateError::expired, "");
  if (!arguments.has("--bundle")) {
    std::cout << path << ": a valid X509-SVID; whom it is trusted by was not asked (--bundle)\n";
    return exit_ok;
  }

  const std::string_view bundle_path = *arguments.get("--bundle");
  const auto bundle_pem = read_pem(bundle_path);
  if (!bundle_pem) return bad_input(command_name, bundle_pem.error());
  auto domain = TrustDomain::parse(rules.id.trust_domain());
  if (!domain) return bad_input(command_name, domain.error());
  auto bundle = TrustBundle::parse(*bundle_pem, std::move(domain).value());
  if (!bundle) return bad_input(command_name, Error{bundle.error().message, std::string(bundle_path)});
  TrustBundleSet bundles;
  bundles.add(std::move(bundle).value());
  const PeerVerification verified = verify_peer(borrow(*chain).get(), bundles, TlsEnd::both, now, std::chrono::seconds{0});
  if (!verified.peer) return refused(path, verified.error, verified.detail);
  std::cout << path << ": accepted by " << bundle_path << "\n";
  return exit_ok;
}

}  // namespace

Command certificate_command() {
  return {
      .name = command_name,
      .summary = "would a sidecar accept this certificate, and if not, why",
      .description =
          "certificate verify FILE checks a PEM chain (leaf first) by the rules that sidecars apply to each other, and its validity now;\n"
          "with --bundle also that it chains to an authority of its own trust domain. Exit 0: accepted, 1: refused, 2: unreadable.",
      .options = {{"--bundle", "FILE", "the trust bundle of the certificate's trust domain (PEM)"}},
      .positionals = "verify FILE",
      .most_positionals = 2,
      .run = run};
}

}  // namespace postern::cli

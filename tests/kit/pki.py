"""Certificate authorities and X.509-SVIDs made with the openssl program: valid ones, and wrong ones in every way a test names.

    ca = Authority(folder, "example.org")
    svid = ca.issue("spiffe://example.org/ns/default/sa/default/pod/web/uid-1")   # PEM: .chain .key .bundle
    expired = ca.issue(id, not_before=-7200, not_after=-3600)
    odd = ca.issue(id, extensions="basicConstraints=CA:TRUE")                     # any extensions instead of the usual
"""

import dataclasses
import os
import re
import secrets
import subprocess
import time

_CONFIG = """
[ca]
default_ca = default
[default]
dir = {folder}
database = $dir/index
serial = $dir/serial
new_certs_dir = $dir/issued
certificate = $dir/ca.pem
private_key = $dir/ca.key
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = optional
organizationName = optional
countryName = optional
[req]
distinguished_name = none
[none]
"""


def openssl(*arguments, stdin=None):
    """Runs openssl and returns its standard output."""
    done = subprocess.run(["openssl", *map(str, arguments)], input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"openssl {' '.join(map(str, arguments))}:\n{done.stderr}")
    return done.stdout


@dataclasses.dataclass
class Svid:
    """What a workload holds: its certificate chain (leaf first), key and trust bundle, as PEM text."""

    spiffe_id: str
    chain: str
    key: str
    bundle: str

    def write(self, folder, uid=None):
        """Writes svid.pem, svid.key (0600) and bundle.pem into the folder, and returns their paths in that order."""
        os.makedirs(folder, exist_ok=True)
        paths = []
        for name, text, mode in (("svid.pem", self.chain, 0o644), ("svid.key", self.key, 0o600), ("bundle.pem", self.bundle, 0o644)):
            path = f"{folder}/{name}"
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="ascii") as file:
                file.write(text)
            if uid is not None:
                os.chown(path, uid, uid)
            paths.append(path)
        return tuple(paths)


class Authority:
    """One certificate authority of a trust domain, with its files in `folder`."""

    def __init__(self, folder, trust_domain="example.org", *, name="test CA"):
        self._make_folder(folder, trust_domain)
        self._new_key(f"{folder}/ca.key")
        openssl("req", "-x509", "-new", "-key", f"{folder}/ca.key", "-config", f"{folder}/config", "-subj", f"/CN={name}", "-days", 30,
                "-out", f"{folder}/ca.pem", "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
                "-addext", f"subjectAltName=URI:spiffe://{trust_domain}", "-addext", "subjectKeyIdentifier=hash")
        with open(f"{folder}/ca.pem", encoding="ascii") as file:
            self.certificate = file.read()

    def _make_folder(self, folder, trust_domain):
        self.folder, self.trust_domain = str(folder), trust_domain
        os.makedirs(f"{folder}/issued")
        for file, text in (("index", ""), ("index.attr", "unique_subject = no\n"), ("config", _CONFIG.format(folder=folder))):
            with open(f"{folder}/{file}", "w", encoding="ascii") as out:
                out.write(text)

    @classmethod
    def below(cls, svid, folder, trust_domain="example.org"):
        """An authority that signs with what issue() made, be it a CA or not: what it issues ends with that certificate's chain."""
        made = cls.__new__(cls)
        made._make_folder(folder, trust_domain)
        for name, text in (("ca.pem", svid.chain), ("ca.key", svid.key)):
            with open(f"{folder}/{name}", "w", encoding="ascii") as file:
                file.write(text)
        made.certificate = svid.bundle
        made.issuers = svid.chain
        return made

    issuers = ""  # what a chain has behind its leaf

    @staticmethod
    def _new_key(path):
        openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", path)

    def issue(self, spiffe_id, *, not_before=-300, not_after=3600, extensions=None, bundle=None, subject="/O=Postern tests"):
        """An SVID for that ID, valid between these seconds from now. `extensions` (lines of an openssl extension section) replace
        the usual ones, which are those of X509-SVID section 4; `bundle` replaces this authority's own."""
        base = f"{self.folder}/issued/{secrets.token_hex(6)}"
        if extensions is None:
            extensions = (f"subjectAltName=URI:{spiffe_id}\nbasicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
                          "extendedKeyUsage=serverAuth,clientAuth\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n")
        with open(f"{base}.ext", "w", encoding="ascii") as file:
            file.write(extensions)
        self._new_key(f"{base}.key")
        openssl("req", "-new", "-key", f"{base}.key", "-config", f"{self.folder}/config", "-subj", subject, "-out", f"{base}.csr")
        instant = lambda offset: time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + offset))
        openssl("ca", "-batch", "-notext", "-rand_serial", "-config", f"{self.folder}/config", "-in", f"{base}.csr", "-extfile", f"{base}.ext",
                "-startdate", instant(not_before), "-enddate", instant(not_after), "-out", f"{base}.pem")
        with open(f"{base}.pem", encoding="ascii") as file:
            leaf = re.search("-----BEGIN CERT.*?-----END CERTIFICATE-----\n", file.read(), re.S).group()
        with open(f"{base}.key", encoding="ascii") as file:
            key = file.read()
        return Svid(spiffe_id, leaf + self.issuers, key, self.certificate if bundle is None else bundle)

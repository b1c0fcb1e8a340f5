"""SPIFFE bundles, for tests.

    text = spiffe_bundle(ca, sequence=2, hint=1)   # JSON, of one or several kit.pki authorities
"""

import json
import re


def spiffe_bundle(*authorities, sequence=None, hint=None):
    """SPIFFE Trust Domain and Bundle section 4: a JWK Set with the authorities' certificates."""
    keys = [{"use": "x509-svid", "kty": "EC", "x5c": ["".join(re.search("-----BEGIN CERTIFICATE-----(.*?)-----END", ca.certificate, re.S)[1].split())]}
            for ca in authorities]
    more = {name: value for name, value in (("spiffe_sequence", sequence), ("spiffe_refresh_hint", hint)) if value is not None}
    return json.dumps({"keys": keys, **more})

"""The software bill of materials of an image: SPDX 2.3, JSON."""

import re
import subprocess

from oci import rfc3339


def package_fields(package):
    fields = ["Package", "Version", "Architecture", "source:Package", "source:Version", "Homepage"]
    form = "\\t".join("${" + field + "}" for field in fields) + "\\n"
    shown = subprocess.run(["dpkg-query", "-W", "-f", form, package], check=True, capture_output=True, text=True).stdout
    return dict(zip(fields, shown.splitlines()[0].split("\t")))


def identifier(text):
    return "SPDXRef-" + re.sub(r"[^A-Za-z0-9.-]", "-", text)


def debian_package(package, release):
    fields = package_fields(package)
    name, version, architecture = fields["Package"], fields["Version"], fields["Architecture"]
    purl = f"pkg:deb/debian/{name.replace('+', '%2B')}@{version.replace('+', '%2B').replace(':', '%3A')}?arch={architecture}&distro=debian-{release}"
    return {
        "SPDXID": identifier("deb-" + name),
        "name": name,
        "versionInfo": version,
        "supplier": "Organization: Debian",
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "sourceInfo": f"built by Debian from the source package {fields['source:Package']} {fields['source:Version']}",
        "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl}],
    }


def spdx(image, version, revision, epoch, packages, compiled_in, release, rootfs_digest):
    """`packages`: whose files are in the image; `compiled_in`: header libraries that are part of the program itself."""
    own = {
        "SPDXID": identifier(image),
        "name": image,
        "versionInfo": version,
        "supplier": "Organization: Postern",
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "Apache-2.0",
        "licenseDeclared": "Apache-2.0",
        "copyrightText": "NOASSERTION",
        "primaryPackagePurpose": "CONTAINER",
        "sourceInfo": f"commit {revision}",
        "checksums": [{"algorithm": "SHA256", "checksumValue": rootfs_digest.split(":")[1]}],
    }
    inside = [debian_package(package, release) for package in sorted(packages)]
    headers = [debian_package(package, release) for package in sorted(compiled_in)]
    relation = lambda kind, package: {"spdxElementId": own["SPDXID"], "relationshipType": kind, "relatedSpdxElement": package["SPDXID"]}
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": f"{image}-{version}",
        "documentNamespace": f"https://postern.dev/spdx/{image}-{version}-{rootfs_digest.split(':')[1]}",
        "creationInfo": {"created": rfc3339(epoch), "creators": ["Tool: tools/images", "Organization: Postern"]},
        "packages": [own, *inside, *headers],
        "relationships": [
            {"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": own["SPDXID"]},
            *[relation("CONTAINS", package) for package in inside],
            *[relation("STATIC_LINK", package) for package in headers],
        ],
    }

"""An image as an OCI image layout (image-spec v1.1) and as an archive that `docker load` and `ctr images import` read. The same files give the
same bytes: entries are sorted, and belong to root at one time."""

import datetime
import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def tar_entry(name, epoch):
    info = tarfile.TarInfo(name)
    info.mtime = epoch
    info.mode = 0o755
    return info


def layer_tar(entries, epoch):
    """The layer, uncompressed."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in sorted(entries):
            kind, *rest = entries[name]
            info = tar_entry(name, epoch)
            content = b""
            if kind == "dir":
                info.type = tarfile.DIRTYPE
                if name == "tmp":
                    info.mode = 0o1777
            elif kind == "link":
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, rest[0], 0o777
            elif kind == "text":
                info.mode, content = 0o644, rest[0].encode()
            else:
                info.mode = rest[0]
                with open(rest[1], "rb") as file:
                    content = file.read()
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def rfc3339(epoch):
    return datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_image(folder, archive, name, tar, config, architecture, epoch):
    """Writes the layout into `folder` and the archive; yields the digest of the image's manifest."""
    shutil.rmtree(folder, ignore_errors=True)
    blobs = os.path.join(folder, "blobs", "sha256")
    os.makedirs(blobs)
    zipped = gzip.compress(tar, 9, mtime=0)
    created = rfc3339(epoch)
    image = {
        "architecture": architecture,
        "os": "linux",
        "created": created,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [sha256(tar)]},
        "history": [{"created": created, "created_by": "tools/images"}],
    }

    def put(data, media_type):
        digest = sha256(data)
        with open(os.path.join(blobs, digest.split(":")[1]), "wb") as file:
            file.write(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    layer = put(zipped, LAYER)
    configuration = put(canonical(image), CONFIG)
    annotations = {**config["Labels"], "org.opencontainers.image.created": created}
    manifest = put(
        canonical({"schemaVersion": 2, "mediaType": MANIFEST, "config": configuration, "layers": [layer], "annotations": annotations}), MANIFEST
    )
    manifest["platform"] = {"architecture": architecture, "os": "linux"}
    manifest["annotations"] = {"org.opencontainers.image.ref.name": name.rsplit(":", 1)[1]}
    files = {
        "oci-layout": canonical({"imageLayoutVersion": "1.0.0"}),
        "index.json": canonical({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [manifest]}),
    }
    for path, data in files.items():
        with open(os.path.join(folder, path), "wb") as file:
            file.write(data)
    write_archive(archive, name, canonical(image), zipped, epoch)
    return manifest["digest"]


def write_archive(path, name, configuration, zipped, epoch):
    """What `docker save` writes: short names are completed by whoever loads it, as those of pods are."""
    config_name = sha256(configuration).split(":")[1] + ".json"
    layer_name = sha256(zipped).split(":")[1] + ".tar.gz"
    files = {
        "manifest.json": canonical([{"Config": config_name, "RepoTags": [name], "Layers": [layer_name]}]),
        config_name: configuration,
        layer_name: zipped,
    }
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for entry in sorted(files):
            info = tar_entry(entry, epoch)
            info.mode, info.size = 0o644, len(files[entry])
            tar.addfile(info, io.BytesIO(files[entry]))

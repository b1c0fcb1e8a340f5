"""The images, assembled from the programs of a build tree and this machine's packages: layout, contents, SBOM, and that they start.

    python3 images_test.py BUILD_TREE        # root is needed to start them (chroot)
"""

import gzip
import hashlib
import io
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tarfile
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests"))

from kit import containerd  # noqa: E402

TREE = ""
USERS = {"postern-proxy": "1337:1337", "postern-proxy-spire": "1337:1337", "postern-control": "65532:65532", "posternctl": "65532:65532"}
LIMIT = 60_000_000
MODULE = "usr/bin/postern-workload-api.so"
LABEL = "org.opencontainers.image."


def assemble(out, *arguments):
    subprocess.run([sys.executable, ROOT / "tools/images/assemble.py", "--tree", TREE, "--version", "1.2.3", "--revision", "abc",
                    "--epoch", "1700000000", "--out", out, *arguments], check=True, capture_output=True, text=True)


class Blobs:
    """An OCI image layout."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.index = json.loads((self.folder / "index.json").read_text(encoding="utf-8"))
        self.manifest = json.loads(self.read(self.index["manifests"][0]))
        self.config = json.loads(self.read(self.manifest["config"]))
        self.layer = gzip.decompress(self.read(self.manifest["layers"][0]))

    def read(self, descriptor):
        algorithm, digest = descriptor["digest"].split(":")
        data = (self.folder / "blobs" / algorithm / digest).read_bytes()
        if (hashlib.sha256(data).hexdigest(), len(data)) != (digest, descriptor["size"]):
            raise AssertionError(f"{digest} is not what it says")
        return data

    def files(self):
        with tarfile.open(fileobj=io.BytesIO(self.layer)) as tar:
            return {member.name: member for member in tar.getmembers()}


def dockerfile(arguments):
    """What the Dockerfile makes of each target, with build arguments: an image's config, and under COPY what its files are."""
    text = re.sub(r"^#.*\n", "", (ROOT / "tools/images/Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    stages = {"scratch": {"Labels": {}, "Env": [], "COPY": []}}
    for line in filter(str.strip, text.splitlines()):
        word, rest = line.split(None, 1)
        if word == "FROM":
            base, _, name = rest.split()
            stage = stages[name] = {key: value.copy() if isinstance(value, (dict, list)) else value for key, value in stages.get(base, stages["scratch"]).items()}
            known = {}
        elif word == "ARG":
            name, _, default = rest.partition("=")
            known[name] = arguments.get(name, default)
        elif word == "LABEL":
            for name, value in (part.split("=", 1) for part in shlex.split(rest)):
                stage["Labels"][name] = re.sub(r"\$(\w+)", lambda found: known[found[1]], value)
        elif word in ("ENV", "COPY"):
            stage[word.replace("ENV", "Env")].append(rest)
        elif word == "ENTRYPOINT":
            stage["Entrypoint"] = json.loads(rest)
        elif word in ("USER", "WORKDIR"):
            stage[{"USER": "User", "WORKDIR": "WorkingDir"}[word]] = rest
        elif word != "RUN":
            raise AssertionError(f"the Dockerfile has a new instruction, {word}: compare it with what tools/images writes")
    return stages


class ImagesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory(prefix="postern-images-")
        cls.addClassCleanup(temporary.cleanup)
        cls.folder = pathlib.Path(temporary.name)
        assemble(cls.folder / "one")
        cls.images = {name: Blobs(cls.folder / "one" / name) for name in USERS}

    def test_the_layout_is_what_the_specification_says(self):
        for name, image in self.images.items():
            folder = self.folder / "one" / name
            self.assertEqual(json.loads((folder / "oci-layout").read_text(encoding="ascii")), {"imageLayoutVersion": "1.0.0"})
            self.assertEqual(image.index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], "1.2.3")
            self.assertEqual(image.config["rootfs"]["diff_ids"], ["sha256:" + hashlib.sha256(image.layer).hexdigest()])
            self.assertEqual(len(list((folder / "blobs/sha256").iterdir())), 3)

    def test_user_entrypoint_and_labels(self):
        for name, image in self.images.items():
            config = image.config["config"]
            self.assertEqual(config["User"], USERS[name])
            self.assertEqual(config["Entrypoint"], [name.removesuffix("-spire")])
            self.assertEqual(config["Labels"][LABEL + "title"], name)
            self.assertEqual(config["Labels"][LABEL + "version"], "1.2.3")
            self.assertEqual(config["Labels"][LABEL + "revision"], "abc")

    def test_the_dockerfile_gives_the_same_configuration(self):
        stages = dockerfile({"VERSION": "1.2.3", "REVISION": "abc"})
        for name, image in self.images.items():
            copied = stages[name].pop("COPY")
            self.assertEqual(copied, [f"--from=build /rootfs/{name} /"])
            self.assertEqual(stages[name], image.config["config"], name)
        version = re.search(r"^project\(postern VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text(encoding="utf-8"), re.MULTILINE)[1]
        self.assertEqual(dockerfile({})["postern-proxy"]["Labels"][LABEL + "version"], version)

    def test_they_are_small_and_have_no_shell(self):
        for name, image in self.images.items():
            self.assertLess(len(image.layer), LIMIT, name)
            files = image.files()
            for program in ("sh", "bash", "dash", "dpkg", "apt-get", "perl", "busybox"):
                self.assertNotIn(f"usr/bin/{program}", files, name)
            for member in files.values():
                self.assertEqual((member.uid, member.gid, member.mtime), (0, 0, 1700000000), member.name)
                self.assertFalse(member.mode & 0o6000, f"{member.name} is setuid or setgid")
                if not member.issym() and member.name != "tmp":
                    self.assertFalse(member.mode & 0o022, f"{member.name} can be written by others")
        self.assertNotIn(MODULE, self.images["postern-proxy"].files())
        self.assertIn(MODULE, self.images["postern-proxy-spire"].files())

    def test_twice_is_the_same(self):
        before = os.umask(0o077)
        self.addCleanup(os.umask, before)
        names = ("postern-proxy", "posternctl")
        assemble(self.folder / "two", *names)
        for name in names:
            for suffix in (".tar", ".spdx.json", "/index.json"):
                self.assertEqual((self.folder / "one" / (name + suffix)).read_bytes(), (self.folder / "two" / (name + suffix)).read_bytes(), name + suffix)

    def test_the_archive_is_as_docker_saves_one(self):
        for name, image in self.images.items():
            with tarfile.open(self.folder / "one" / f"{name}.tar") as archive:
                only = json.load(archive.extractfile("manifest.json"))[0]
                self.assertEqual(only["RepoTags"], [f"postern/{name}:1.2.3"])
                self.assertEqual(json.load(archive.extractfile(only["Config"])), image.config)
                self.assertEqual(gzip.decompress(archive.extractfile(only["Layers"][0]).read()), image.layer)

    def test_the_bill_of_materials_names_every_package_in_the_image(self):
        for name, image in self.images.items():
            document = json.loads((self.folder / "one" / f"{name}.spdx.json").read_text(encoding="utf-8"))
            self.assertEqual((document["spdxVersion"], document["dataLicense"]), ("SPDX-2.3", "CC0-1.0"))
            packages = {package["SPDXID"]: package for package in document["packages"]}
            contained = [packages[r["relatedSpdxElement"]] for r in document["relationships"] if r["relationshipType"] == "CONTAINS"]
            notices = {path.split("/")[3] for path in image.files() if path.startswith("usr/share/doc/") and path.endswith("/copyright")}
            self.assertEqual({package["name"] for package in contained}, notices)
            self.assertIn("libssl3", {package["name"].removesuffix("t64") for package in contained})
            for package in contained:
                version = subprocess.run(["dpkg-query", "-W", "-f", "${Version}\n", package["name"]], capture_output=True, text=True, check=True).stdout
                self.assertEqual(package["versionInfo"], version.splitlines()[0])
                self.assertRegex(package["externalRefs"][0]["referenceLocator"], r"^pkg:deb/debian/")
            self.assertIn("STATIC_LINK", {r["relationshipType"] for r in document["relationships"]})

    @unittest.skipUnless(os.geteuid() == 0, "chroot needs root")
    def test_they_start_as_their_user_from_their_own_files(self):
        for name, image in self.images.items():
            root = self.folder / "roots" / name
            with tarfile.open(fileobj=io.BytesIO(image.layer)) as tar:
                tar.extractall(root)
            run = ["/usr/sbin/chroot", f"--userspec={USERS[name]}", "--groups=", root, f"/usr/bin/{image.config['config']['Entrypoint'][0]}"]
            done = subprocess.run([*run, "--help"], capture_output=True, text=True, check=False, env={})
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("usage", done.stdout.lower())
            if name.startswith("postern-proxy"):
                done = subprocess.run([*run, "redirect", "install", "--dry-run"], capture_output=True, text=True, check=False, env={})
                self.assertEqual(done.returncode, 0, done.stderr)
                for tool in ("iptables-nft-restore", "iptables-legacy-restore", "ip6tables-nft-save", "ip6tables-legacy-save"):
                    done = subprocess.run(["/usr/sbin/chroot", root, f"/usr/sbin/{tool}", "--version"], capture_output=True, text=True, check=False, env={})
                    self.assertEqual(done.returncode, 0, done.stderr)

    def test_containerd_runs_them_as_their_user_with_a_read_only_root(self):
        if missing := containerd.lacks():
            self.skipTest(f"no container can run here; what is missing: {missing}")
        node = containerd.Containerd(self.folder / "containerd")
        self.addCleanup(node.close)
        for name, image in self.images.items():
            node.load(self.folder / "one" / f"{name}.tar")
            done = node.run(f"docker.io/postern/{name}:1.2.3", *image.config["config"]["Entrypoint"], "--help")
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertIn("usage", done.stdout.lower())
            user = done.spec["process"]["user"]
            self.assertEqual(f"{user['uid']}:{user['gid']}", USERS[name])
            self.assertTrue(done.spec["root"]["readonly"])

    def test_bad_input_is_named(self):
        for arguments, words in ((["--tree", "/nowhere"], "/nowhere"), (["nothing"], "there is no image 'nothing'")):
            done = subprocess.run([sys.executable, ROOT / "tools/images/assemble.py", "--tree", TREE, "--out", self.folder / "bad", *arguments],
                                  capture_output=True, text=True, check=False)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(words, done.stderr)


if __name__ == "__main__":
    TREE = sys.argv.pop(1)
    unittest.main()

"""A real SPIRE server and agent (tests/spire; `./dev spire` builds them) on loopback, and go-spiffe peers.

    spire = Spire(folder, "example.org")                       # up, without any entries; everything lives in `folder`
    entry = spire.register("/ns/shop/sa/web", uid=1337, ttl=20, hint="web")
    spire.endpoint                                             # unix:///...: for SPIFFE_ENDPOINT_SOCKET
    spire.delete(entry); spire.stop_agent(); spire.start_agent()
    server = spire.peer(pod, "serve", address=..., authorize=..., uid=2001)     # a Process; the kernel tells the agent its uid

Who a caller is, the agent learns from the kernel: another uid is another workload."""

import json
import os
import pathlib
import shutil
import socket

from kit.processes import Process, at_end, not_at_end, run
from kit.waiting import wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]

SERVER = """server {{
  bind_address = "127.0.0.1"
  bind_port = "{port}"
  socket_path = "{folder}/server.sock"
  data_dir = "{folder}/server"
  trust_domain = "{trust_domain}"
  log_level = "INFO"
{federation}}}
plugins {{
  DataStore "sql" {{ plugin_data {{ database_type = "sqlite3" connection_string = "{folder}/server/entries" }} }}
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  KeyManager "memory" {{ plugin_data {{}} }}
}}
"""
FEDERATION = """  federation {{
    bundle_endpoint {{
      address = "127.0.0.1"
      port = {port}
      refresh_hint = "10s"
      profile "https_spiffe" {{}}
    }}
  }}
"""
AGENT = """agent {{
  server_address = "127.0.0.1"
  server_port = "{port}"
  socket_path = "{folder}/agent.sock"
  data_dir = "{folder}/agent"
  trust_bundle_path = "{folder}/bundle.pem"
  trust_domain = "{trust_domain}"
  log_level = "INFO"
}}
plugins {{
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  KeyManager "memory" {{ plugin_data {{}} }}
  WorkloadAttestor "unix" {{ plugin_data {{}} }}
}}
"""


def program(name):
    """The built `spire` (server and agent) or `peer` of tests/spire."""
    path = pathlib.Path(os.environ.get("POSTERN_SPIRE", ROOT / "build/spire")) / name
    if not os.access(path, os.X_OK):
        raise FileNotFoundError(f"{path} is missing: SPIRE for the tests. Run: ./dev spire")
    return str(path)


class Spire:
    """A SPIRE server and one agent. Their output is in server.log and agent.log of `folder`, whose path must be short (a unix socket's is)."""

    def __init__(self, folder, trust_domain, *, endpoint_port=None):
        """`endpoint_port`: where the server serves its bundle, by the profile https_spiffe."""
        self.folder, self.trust_domain = pathlib.Path(folder), trust_domain
        self.folder.mkdir(parents=True)
        self.folder.chmod(0o755)  # the agent's socket is for every uid
        (self.folder / "server").mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        values = {"folder": self.folder, "port": port, "trust_domain": trust_domain,
                  "federation": FEDERATION.format(port=endpoint_port) if endpoint_port else ""}
        (self.folder / "server.conf").write_text(SERVER.format(**values))
        (self.folder / "agent.conf").write_text(AGENT.format(**values))
        self.endpoint = f"unix://{self.folder}/agent.sock"
        self.agent = None
        at_end(self.stop)
        self.server = self._start("server")
        (self.folder / "bundle.pem").write_text(self._server("bundle", "show"))
        self.start_agent()

    def start_agent(self):
        """A new agent: it attests with a new token, and knows nothing of the one before."""
        shutil.rmtree(self.folder / "agent", ignore_errors=True)
        (self.folder / "agent").mkdir()
        token = json.loads(self._server("token", "generate", "-spiffeID", self.id_of("/node"), "-output", "json"))["value"]
        self.agent = self._start("agent", "-joinToken", token)

    def stop_agent(self):
        self.agent.kill()

    def stop(self):
        not_at_end(self.stop)
        for process in (self.agent, self.server):
            if process:
                process.kill()

    def id_of(self, path):
        return f"spiffe://{self.trust_domain}{path}"

    def set_bundle(self, trust_domain, certificate):
        """The bundle of another trust domain, PEM."""
        path = self.folder / f"{trust_domain}.pem"
        path.write_text(certificate)
        self._server("bundle", "set", "-format", "pem", "-id", f"spiffe://{trust_domain}", "-path", str(path))

    def register(self, path, *, uid, ttl=3600, hint=None, federates_with=None):
        """An entry for every process of that uid; returns its id. The agent knows of it some seconds later."""
        made = self._server("entry", "create", "-parentID", self.id_of("/node"), "-spiffeID", self.id_of(path), "-selector", f"unix:uid:{uid}",
                            "-x509SVIDTTL", str(ttl), *(["-hint", hint] if hint else []), *(["-federatesWith", f"spiffe://{federates_with}"] if federates_with else []), "-output", "json")
        result = json.loads(made)["results"][0]
        if result["status"]["code"] != 0:
            raise RuntimeError(f"entry {path}: {result['status']}")
        return result["entry"]["id"]

    def delete(self, entry):
        self._server("entry", "delete", "-entryID", entry)

    def peer(self, pod, mode, *, address, authorize, uid, send=None):
        """A go-spiffe server ("serve") or client ("call") in that pod."""
        arguments = ["--socket", self.endpoint, "--address", address, "--authorize", self.id_of(authorize)]
        return pod.start([program("peer"), mode, *arguments, *(["--send", send] if send else [])], uid=uid, name=f"peer-{mode}")

    def _server(self, *arguments):
        return run([program("spire"), "server", *arguments, "-socketPath", self.folder / "server.sock"], check=True).stdout

    def _start(self, name, *arguments):
        process = Process([program("spire"), name, "run", "-config", str(self.folder / f"{name}.conf"), *arguments],
                          output=str(self.folder / f"{name}.log"), cwd=str(self.folder), name=f"spire-{name}")
        health = [program("spire"), name, "healthcheck", "-socketPath", str(self.folder / f"{name}.sock")]

        def look():
            return "ended" if not process.alive() else run(health).returncode == 0
        if wait_until(look, 60, lambda: f"spire {name} ready:\n{process.output()[-3000:]}", interval=0.1) == "ended":
            raise RuntimeError(f"spire {name} has ended with {process.returncode}:\n{process.output()[-3000:]}")
        return process

"""postern-proxy redirect: real iptables of both kinds, both families, in pods of their own. No sidecar runs here: what arrives on its
ports is taken by this test, which asks the kernel where it was going."""

import os
import socket
import struct
import subprocess
import unittest

from kit.pods import Network
from kit.processes import run
from kit.sidecar import program
from kit.waiting import patience

SO_ORIGINAL_DST = 80  # of linux/netfilter_ipv4.h and, for IPv6, linux/netfilter_ipv6/ip6_tables.h
CHAINS = ("POSTERN_INBOUND", "POSTERN_OUTBOUND")


def original_destination(s):
    """Address and port that a redirected connection was made to."""
    if s.family == socket.AF_INET:
        raw = s.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
        return socket.inet_ntop(socket.AF_INET, raw[4:8]), struct.unpack("!H", raw[2:4])[0]
    raw = s.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, 28)
    return socket.inet_ntop(socket.AF_INET6, raw[8:24]), struct.unpack("!H", raw[2:4])[0]


class RedirectCase(unittest.TestCase):
    """A network with a pod `here`, in which the rules are made, and `there`."""

    def setUp(self):
        self.net = Network()
        self.addCleanup(self.net.close)
        self.here, self.there = self.net.pod("here"), self.net.pod("there")

    def redirect(self, *arguments, pod=None, status=0, uid=0, wrap=()):
        """Runs it and returns what it printed."""
        done = (pod or self.here).run([*wrap, program("postern-proxy"), "redirect", *arguments], uid=uid)
        said = done.stdout + done.stderr
        self.assertEqual(done.returncode, status, f"redirect {' '.join(map(str, arguments))}:\n{said}")
        return said

    def saved(self, tool="iptables-nft", pod=None):
        """The lines of the nat table, without counters and comments."""
        lines = (pod or self.here).run([f"{tool}-save", "-t", "nat"], check=True).stdout.splitlines()
        return [line.split(" [")[0] for line in lines if line and not line.startswith("#")]

    def ours(self, tool="iptables-nft", pod=None):
        return [line for line in self.saved(tool, pod) if "POSTERN_" in line]

    def arrives(self, client, address, port, listener):
        """A connection from the pod to there arrives at the listener; returns the original destination."""
        connection = client.connect(address, port)
        accepted, _ = listener.accept()
        with connection, accepted:
            accepted.sendall(b"x")
            self.assertEqual(connection.recv(1), b"x")
            return original_destination(accepted)

    def goes_straight(self, client, address, port, server):
        """A connection from the pod to there arrives at the server itself, as it was made."""
        with server.listen(port, "::" if ":" in address else "") as listener:
            connection = client.connect(address, port)
            accepted, _ = listener.accept()
            with connection, accepted:
                self.assertEqual(accepted.getsockname()[:2], (address, port))


class TrafficTest(RedirectCase):
    """Which connections arrive where, in both families and with both kinds of iptables."""

    def both_families(self, function):
        for here, there, any_address in ((self.here.v4, self.there.v4, ""), (self.here.v6, self.there.v6, "::")):
            with self.subTest(address=here):
                function(here, there, any_address)

    def test_arriving_connections_go_to_the_inbound_port(self):
        self.redirect("install")
        def check(here, _there, any_address):
            with self.here.listen(15006, any_address) as inbound:
                self.assertEqual(self.arrives(self.there, here, 8080, inbound), (here, 8080))
        self.both_families(check)

    def test_the_pods_own_connections_go_to_the_outbound_port(self):
        self.redirect("install")
        def check(_here, there, any_address):
            with self.here.listen(15001, "::1" if any_address else "127.0.0.1") as outbound:
                self.assertEqual(self.arrives(self.here, there, 8080, outbound), (there, 8080))
        self.both_families(check)

    def test_legacy_tables_do_the_same(self):
        self.redirect("install", "--iptables", "/usr/sbin/iptables-legacy")
        def check(here, there, any_address):
            with self.here.listen(15006, any_address) as inbound:
                self.assertEqual(self.arrives(self.there, here, 8080, inbound), (here, 8080))
            with self.here.listen(15001, any_address) as outbound:
                self.assertEqual(self.arrives(self.here, there, 8080, outbound), (there, 8080))
        self.both_families(check)

    def test_a_pod_reaches_itself_past_the_sidecar(self):
        self.redirect("install")
        def check(here, _there, any_address):
            self.goes_straight(self.here, here, 8080, self.here)
            self.goes_straight(self.here, "::1" if any_address else "127.0.0.1", 8080, self.here)
        self.both_families(check)

    def test_the_sidecars_uid_and_excluded_ones_are_left_alone(self):
        self.redirect("install", "--uid", 4001, "--exclude-uids", "4003")
        code = "import socket,sys; s=socket.create_connection((sys.argv[1],8080),10); print(s.recv(9).decode())"
        def check(_here, there, any_address):
            with self.there.listen(8080, any_address) as server, self.here.listen(15001, any_address) as outbound:
                for uid, listener in ((4001, server), (4002, outbound), (4003, server), (1337, outbound)):
                    client = self.here.start(["/usr/bin/python3", "-c", code, there], uid=uid)
                    with listener.accept()[0] as accepted:
                        accepted.sendall(b"uid %d" % uid)
                    self.assertEqual((client.wait(), client.output().strip()), (0, f"uid {uid}"))
        self.both_families(check)

    def test_a_gid_is_left_alone_when_named(self):
        self.redirect("install", "--gid", 4005)
        with self.there.listen(8080) as server:
            code = "import socket,sys; s=socket.create_connection((sys.argv[1],8080),10); print(s.recv(9).decode())"
            client = self.here.start(["/usr/bin/python3", "-c", code, self.there.v4], uid=4004, gid=4005)
            with server.accept()[0] as accepted:
                accepted.sendall(b"straight")
            self.assertEqual((client.wait(), client.output().strip()), (0, "straight"))

    def test_excluded_ports_and_destinations_are_left_alone(self):
        third = self.net.pod("third")
        self.redirect("install", "--exclude-inbound-ports", "2222,9100", "--exclude-outbound-ports", "2525",
                      "--exclude-cidrs", f"{third.v4},{third.v6}/128")
        def check(here, there, any_address):
            self.goes_straight(self.there, here, 9100, self.here)
            self.goes_straight(self.there, here, 15020, self.here)
            self.goes_straight(self.here, there, 2525, self.there)
            self.goes_straight(self.here, third.v6 if any_address else third.v4, 8080, third)
            with self.here.listen(15001, any_address) as outbound:
                self.assertEqual(self.arrives(self.here, there, 9100, outbound), (there, 9100))
        self.both_families(check)

    def test_the_sidecars_own_ports_cannot_be_reached_unredirected(self):
        """What is addressed to 15006 or 15001 arrives on 15006 as that, and the sidecar refuses it."""
        self.redirect("install")
        with self.here.listen(15006) as inbound:
            for port in (15006, 15001):
                self.assertEqual(self.arrives(self.there, self.here.v4, port, inbound), (self.here.v4, port))

    def test_nothing_is_redirected_after_remove(self):
        self.redirect("install")
        self.redirect("remove")
        def check(here, there, _any_address):
            self.goes_straight(self.there, here, 8080, self.here)
            self.goes_straight(self.here, there, 8080, self.there)
        self.both_families(check)


class InstallTest(RedirectCase):
    """install, check and remove as changes of the tables."""

    def test_is_idempotent(self):
        self.redirect("install")
        first = {tool: self.saved(tool) for tool in ("iptables-nft", "ip6tables-nft")}
        self.assertIn("were in place already", self.redirect("install"))
        self.assertEqual({tool: self.saved(tool) for tool in first}, first)
        self.assertEqual(sum("-j POSTERN_OUTBOUND" in line for line in first["iptables-nft"]), 1)

    def test_check_agrees_with_install_and_with_nothing_else(self):
        self.assertIn("chain POSTERN_INBOUND is missing", self.redirect("check", status=1))
        options = ("--uid", "2000", "--exclude-inbound-ports", "22", "--exclude-cidrs", "10.0.0.0/8,fd00::/8")
        self.redirect("install", *options)
        self.assertEqual(self.redirect("check", *options).count("as expected"), 2)
        said = self.redirect("check", status=1)
        self.assertIn("IPv4 (iptables-nft): missing in POSTERN_OUTBOUND: -m owner --uid-owner 1337 -j RETURN", said)
        self.assertIn("IPv4 (iptables-nft): not expected in POSTERN_INBOUND: -p tcp -m tcp --dport 22 -j RETURN", said)
        self.assertIn("IPv6 (iptables-nft): not expected in POSTERN_OUTBOUND: -d fd00::/8 -j RETURN", said)

    def test_new_options_replace_the_old_rules(self):
        self.redirect("install", "--uid", "2000", "--exclude-inbound-ports", "22")
        self.redirect("install", "--exclude-inbound-ports", "23")
        self.redirect("check", "--exclude-inbound-ports", "23")

    def test_check_says_what_is_missing_and_install_mends_it(self):
        for damage, expected in (
                (["-D", "OUTPUT", "-p", "tcp", "-j", "POSTERN_OUTBOUND"], "missing: OUTPUT -p tcp -j POSTERN_OUTBOUND"),
                (["-A", "OUTPUT", "-p", "tcp", "-j", "POSTERN_OUTBOUND"], "not expected: OUTPUT -p tcp -j POSTERN_OUTBOUND"),
                (["-D", "POSTERN_OUTBOUND", "1"], "missing in POSTERN_OUTBOUND: -o lo -j RETURN"),
                (["-I", "POSTERN_INBOUND", "-s", "10.77.0.9", "-j", "RETURN"], "not expected in POSTERN_INBOUND: -s 10.77.0.9/32 -j RETURN"),
                (["-I", "PREROUTING", "-p", "tcp", "--dport", "80", "-j", "ACCEPT"], "comes before ours, which must be first: PREROUTING -p tcp")):
            with self.subTest(damage=damage):
                self.redirect("install")
                self.here.run(["iptables-nft", "-t", "nat", *damage], check=True)
                said = self.redirect("check", status=1)
                self.assertIn(expected, said)
                self.assertIn("redirect install", said)
                self.redirect("install")
                self.redirect("check")

    def test_a_lost_chain_is_mended(self):
        self.redirect("install")
        for command in (["-D", "OUTPUT", "1"], ["-F", "POSTERN_OUTBOUND"], ["-X", "POSTERN_OUTBOUND"]):
            self.here.run(["iptables-nft", "-t", "nat", *command], check=True)
        self.assertIn("chain POSTERN_OUTBOUND is missing", self.redirect("check", status=1))
        self.redirect("install")
        self.redirect("check")

    def test_the_rules_of_others_stay(self):
        for tool in ("iptables-nft", "ip6tables-nft"):
            self.here.run([tool, "-t", "nat", "-N", "OTHERS"], check=True)
            self.here.run([tool, "-t", "nat", "-A", "PREROUTING", "-p", "udp", "--dport", "53", "-j", "OTHERS"], check=True)
        before = {tool: self.saved(tool) for tool in ("iptables-nft", "ip6tables-nft")}
        self.redirect("install")
        self.redirect("check")
        self.redirect("remove")
        self.assertEqual({tool: self.saved(tool) for tool in before}, before)

    def test_remove_is_idempotent_and_takes_both_kinds(self):
        self.redirect("install", "--iptables", "/usr/sbin/iptables-legacy")
        rules = "".join(line + "\n" for line in self.redirect("install", "--dry-run").split("# ip6")[0].splitlines())
        self.here.run(["iptables-nft-restore", "--noflush"], stdin=rules, check=True)
        self.redirect("remove")
        for tool in ("iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy"):
            self.assertEqual(self.ours(tool), [], tool)
        self.assertIn("there are no rules of ours", self.redirect("remove"))

    def test_rules_in_two_tables_are_found_and_become_one(self):
        self.redirect("install", "--iptables", "/usr/sbin/iptables-nft")
        rules = self.redirect("install", "--dry-run").split("# ip6")[0]
        self.here.run(["iptables-legacy-restore", "--noflush"], stdin=rules, check=True)
        self.assertIn("IPv4 (iptables-legacy): rules of ours are not expected here as well", self.redirect("check", status=1))
        self.redirect("install")
        self.redirect("check")
        self.assertEqual(self.ours("iptables-legacy"), [])

    def test_concurrent_installs_end_in_the_same_rules(self):
        processes = [self.here.start([program("postern-proxy"), "redirect", "install"], name=f"install{n}") for n in range(6)]
        for process in processes:
            process.wait(30)
        self.redirect("install")
        self.redirect("check")

    def test_dry_run_prints_what_install_does_and_changes_nothing(self):
        printed = self.redirect("install", "--dry-run", "--exclude-uids", "5")
        self.assertEqual(self.ours(), [])
        self.redirect("install", "--exclude-uids", "5")
        v4, v6 = printed.split("# ip6tables-restore --noflush")
        for text, tool in ((v4, "iptables-nft"), (v6, "ip6tables-nft")):
            self.assertEqual([line for line in text.splitlines() if line.startswith("-A")],
                             [line for line in self.ours(tool) if line.startswith("-A POSTERN")])

    def test_an_install_killed_at_any_time_is_finished_by_the_next(self):
        for delay in range(0, 60, 5):
            process = self.here.start([program("postern-proxy"), "redirect", "install", "--uid", 3000 + delay])
            try:
                process.popen.wait(delay / 1000)
            except subprocess.TimeoutExpired:
                pass
            process.kill()
            self.redirect("install", "--uid", "2000")
            self.redirect("check", "--uid", "2000")
            self.redirect("remove")


class EnvironmentTest(RedirectCase):
    """Pods and machines that lack something."""

    def without(self, *programs):
        """A wrapper that runs a command where these programs cannot be executed."""
        binds = "; ".join(f"mount --bind /dev/null /usr/sbin/{name}" for name in programs)
        return ["unshare", "--mount", "sh", "-ec", f'{binds}; exec "$@"', "sh"]

    def replaced(self, **scripts):
        """A folder of iptables programs that are those of nf_tables, some replaced by shell scripts; the path of its iptables."""
        folder = f"{self.here.folder}/bin"
        os.mkdir(folder)
        for name in ("iptables-nft", "ip6tables-nft"):
            for suffix in ("", "-save", "-restore"):
                script = scripts.get((name + suffix).replace("-", "_"), f'exec /usr/sbin/{name}{suffix} "$@"')
                with open(os.open(f"{folder}/{name}{suffix}", os.O_WRONLY | os.O_CREAT, 0o755), "w", encoding="ascii") as file:
                    file.write(f"#!/bin/sh\n{script}\n")
        return f"{folder}/iptables-nft"

    def test_a_pod_without_ipv6_gets_ipv4_rules(self):
        pod = self.net.pod("plain", ipv6=False)
        self.assertIn("IPv6 skipped: this pod has no IPv6 address", self.redirect("install", pod=pod))
        self.redirect("check", pod=pod)
        with pod.listen(15006) as inbound:
            self.assertEqual(self.arrives(self.there, pod.v4, 80, inbound), (pod.v4, 80))
        self.redirect("remove", pod=pod)
        self.assertEqual(self.ours(pod=pod), [])

    def test_ipv6_that_cannot_be_redirected_is_an_error_and_not_a_way_past(self):
        tools = self.replaced(ip6tables_nft_save='echo "Table does not exist" >&2; exit 3')
        said = self.redirect("install", "--iptables", tools, status=1)
        for words in ("this pod has IPv6 addresses", "Table does not exist", "--ipv6 off", "disable_ipv6"):
            self.assertIn(words, said)
        self.assertEqual(self.ours(), [])
        self.assertIn("IPv6 left alone", self.redirect("install", "--iptables", tools, "--ipv6", "off"))
        self.assertNotEqual(self.ours(), [])

    def test_when_ipv6_fails_ipv4_is_put_back(self):
        tools = self.replaced(ip6tables_nft_restore='echo "no such module" >&2; exit 4')
        said = self.redirect("install", "--iptables", tools, status=1)
        self.assertIn("IPv6 rules could not be put in place", said)
        self.assertIn("no such module", said)
        self.assertIn("IPv4 was put back as it was", said)
        self.assertEqual(self.ours(), [])

    def test_when_ipv6_fails_earlier_ipv4_rules_are_put_back(self):
        self.redirect("install", "--uid", "2000", "--ipv6", "off")
        before = self.saved()
        tools = self.replaced(ip6tables_nft_restore="exit 4")
        self.redirect("install", "--iptables", tools, "--uid", "3000", status=1)
        self.assertEqual(self.saved(), before)

    def test_rules_that_do_not_stay_are_an_error(self):
        tools = self.replaced(iptables_nft_restore="exit 0")
        self.assertIn("accepted, but are not there", self.redirect("install", "--iptables", tools, status=1))

    def test_legacy_is_used_where_it_is_all_there_is(self):
        wrap = self.without("iptables-nft-save")
        self.assertIn("(iptables-legacy)", self.redirect("install", wrap=wrap))
        self.redirect("check", wrap=wrap)
        self.assertNotEqual(self.ours("ip6tables-legacy"), [])

    def test_nf_tables_is_used_where_it_is_all_there_is(self):
        self.assertIn("(iptables-nft)", self.redirect("install", wrap=self.without("iptables-legacy-save")))
        self.assertFalse(os.path.exists("/proc/net/ip_tables_names") and "nat" in self.here.run(["cat", "/proc/net/ip_tables_names"]).stdout)

    def test_the_tables_that_are_in_use_are_preferred(self):
        self.here.run(["iptables-legacy", "-t", "nat", "-A", "PREROUTING", "-p", "udp", "-j", "ACCEPT"], check=True)
        self.assertIn("(iptables-legacy)", self.redirect("install"))
        self.redirect("check")

    def test_without_any_iptables_the_error_says_what_to_do(self):
        wrap = self.without("iptables-nft-save", "iptables-legacy-save", "iptables-save")
        said = self.redirect("install", status=1, wrap=wrap)
        self.assertIn("no iptables-nft, iptables-legacy or iptables was found", said)
        self.assertIn("expected root with NET_ADMIN, the package iptables", said)

    def test_without_the_privilege_the_error_says_so(self):
        self.assertIn("NET_ADMIN", self.redirect("install", uid=1000, status=1))

    def test_bad_arguments_have_an_exit_status_of_their_own(self):
        said = self.redirect("install", "--inbound-port", "99999", status=2)
        self.assertIn("--inbound-port '99999': expected a port number", said)
        self.assertIn("expected the absolute path", self.redirect("remove", "--iptables", "iptables-nft", status=2))


class HelpTest(unittest.TestCase):
    """What a person sees who asks."""

    def test_help_names_every_option(self):
        done = run([program("postern-proxy"), "redirect", "--help"], deadline=patience(10))
        self.assertEqual(done.returncode, 0)
        for flag in ("--uid", "--gid", "--inbound-port", "--outbound-port", "--health-port", "--exclude-inbound-ports", "--exclude-outbound-ports",
                     "--exclude-cidrs", "--exclude-uids", "--ipv6", "--iptables", "--dry-run"):
            self.assertIn(flag, done.stdout)


if __name__ == "__main__":
    unittest.main()

"""Processes in network namespaces that never outlive their test.

A child starts with setns, the uid and a parent-death signal, in a session of its own (so that Ctrl-C reaches only the test, which then
cleans up). A parent-death signal belongs to the thread that started the child: start children from the main thread, or from one that lives
at least as long."""

import atexit
import ctypes
import os
import re
import signal
import subprocess
import tempfile
import threading

from kit.waiting import patience, wait_until

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1

_cleanups = []


def at_end(cleanup):
    """Runs cleanup() when this process ends, also after an exception, Ctrl-C, SIGTERM or SIGHUP; the latest first."""
    if not _cleanups:
        atexit.register(_run_cleanups)
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, _exit_on_signal)
    _cleanups.append(cleanup)


def not_at_end(cleanup):
    """Forgets a cleanup that has been done already."""
    if cleanup in _cleanups:
        _cleanups.remove(cleanup)


def _exit_on_signal(number, _frame):
    raise SystemExit(128 + number)


def _run_cleanups():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while _cleanups:
        try:
            _cleanups.pop()()
        except Exception as error:  # pylint: disable=broad-except
            print(f"cleanup: {error!r}")


def setns(path):
    """Moves the calling thread into the network namespace at `path`."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if LIBC.setns(fd, CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"setns {path}: {os.strerror(number)}")
    finally:
        os.close(fd)


class Process:
    """A running program. Standard output and error go to one file, `output_path`; standard input is empty or `stdin`."""

    def __init__(self, argv, *, namespace=None, uid=0, gid=None, env=None, cwd=None, output=None, stdin=subprocess.DEVNULL, name=None):
        self.argv = [str(a) for a in argv]
        self.name = name or os.path.basename(self.argv[0])
        if output is None:
            fd, output = tempfile.mkstemp(prefix=f"postern-{self.name}-", suffix=".out")
            os.close(fd)
            at_end(lambda: os.path.exists(output) and os.unlink(output))
        self.output_path = str(output)
        gid = uid if gid is None else gid
        parent = os.getpid()

        def prepare():
            if namespace:
                setns(namespace)
            if uid or gid:
                os.setgroups([])
                os.setresgid(gid, gid, gid)
                os.setresuid(uid, uid, uid)
            # After the change of uid, which clears it. Then look whether the parent went away before.
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(125)

        with open(self.output_path, "ab") as out:
            self.popen = subprocess.Popen(self.argv, stdin=stdin, stdout=out, stderr=subprocess.STDOUT, cwd=cwd,
                                          env={**os.environ, **(env or {})}, start_new_session=True, preexec_fn=prepare)
        at_end(self.kill)

    @property
    def pid(self):
        return self.popen.pid

    @property
    def returncode(self):
        """None while it runs; negative: ended by that signal."""
        return self.popen.poll()

    def alive(self):
        return self.popen.poll() is None

    def output(self):
        with open(self.output_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def wait_for_output(self, pattern, deadline=10.0):
        """Waits until the output matches the regular expression, and returns the match."""
        def look():
            found = re.search(pattern, self.output())
            if not found and not self.alive():
                raise RuntimeError(f"{self.name} has ended with {self.returncode}")
            return found
        return wait_until(look, deadline, lambda: f"{pattern!r} in the output of {self.name}:\n{self.output()[-4000:]}")

    def wait(self, deadline=10.0):
        """Waits for its end and returns the exit status (negative: signal)."""
        try:
            return self.popen.wait(patience(deadline))
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.name} ({self.pid}) has not ended within {patience(deadline):g} s:\n{self.output()[-4000:]}") from None

    def send(self, number):
        """Sends a signal."""
        self.popen.send_signal(number)

    def stop(self, number=signal.SIGTERM, deadline=10.0):
        """Asks it to end, waits, and returns the exit status. Whatever it left in its process group is killed."""
        if self.alive():
            self.send(number)
        try:
            return self.wait(deadline)
        finally:
            self.kill()

    def kill(self):
        """SIGKILL to it and to its process group, and reaps it."""
        not_at_end(self.kill)
        try:
            os.killpg(self.popen.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.popen.wait()


def run(argv, *, namespace=None, uid=0, deadline=30.0, stdin=None, check=False):
    """Runs a program to its end and returns the CompletedProcess (text, output and errors apart)."""
    def prepare():
        if namespace:
            setns(namespace)
        if uid:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    argv = [str(a) for a in argv]
    done = subprocess.run(argv, input=stdin if stdin is not None else "", capture_output=True, text=True, timeout=patience(deadline),
                          preexec_fn=prepare, check=False)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done

"""Waiting with a condition and a deadline; nothing in the tests sleeps in the hope that something has happened."""

import os
import time


def sanitized():
    """Whether the programs under test have sanitizers: slower, and with memory of their own."""
    return os.path.basename(os.environ.get("POSTERN_BUILD", "")) in ("asan", "tsan")


def patience(seconds):
    """A deadline that fits the programs under test: those with sanitizers are several times slower."""
    return seconds * (4 if sanitized() else 1)


def wait_until(condition, deadline=10.0, what="", interval=0.02):
    """Calls condition() until it returns something true, and returns that. An exception counts as "not yet".

    After `deadline` seconds (see patience) raises TimeoutError, which says `what` was waited for and what came last.
    `what` may be a function, called for the message."""
    end = time.monotonic() + patience(deadline)
    last = None
    while True:
        try:
            last = condition()
            if last:
                return last
        except Exception as error:  # pylint: disable=broad-except
            last = error
        if time.monotonic() >= end:
            raise TimeoutError(f"not within {patience(deadline):g} s: {what() if callable(what) else what} (last: {last!r})")
        time.sleep(interval)

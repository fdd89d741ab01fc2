"""Breaks what a test cannot break from outside: a fake clock, a blocked main thread, few open files.

Python loads this at its start from PYTHONPATH, see `tests.faults.sabotaged`. SIGUSR1 blocks the main thread, and with
it the event loop, for SABOTAGE_BLOCK_S seconds. SIGUSR2 moves the wall clock by SABOTAGE_CLOCK_S seconds, by clock.c;
the monotonic clock goes on as always. SABOTAGE_FILES limits the open files for good.
"""

import ctypes
import os
import resource
import signal
import time


def move_the_clock(*_: object) -> None:
    """Move it, each time once more."""
    ctypes.CDLL(None).move_the_clock(ctypes.c_long(int(os.environ["SABOTAGE_CLOCK_S"])))


def block_the_event_loop(*_: object) -> None:
    """Python runs signal handlers in the main thread."""
    time.sleep(float(os.environ["SABOTAGE_BLOCK_S"]))


if "SABOTAGE_BLOCK_S" in os.environ:
    signal.signal(signal.SIGUSR1, block_the_event_loop)
if "SABOTAGE_CLOCK_S" in os.environ:
    signal.signal(signal.SIGUSR2, move_the_clock)
if "SABOTAGE_FILES" in os.environ:
    few = int(os.environ["SABOTAGE_FILES"])
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, few))

"""How a thread gets its turns beside a packet loop that is never idle.

Under load the loop lets go of the interpreter's lock only for the microseconds of a system call, and takes it back at
once. A thread that waits for the lock is woken by each of these, comes too late, and its wait begins anew: by default
5 ms without such a wake until it may demand the lock, and the kernel adds 50 us to any wait. Between two system calls
there is no such time, so the thread gets its turns by chance, and a batch of spends took 150 ms or for ever.

With waits of microseconds the thread demands the lock between two system calls: the same batch takes 1 to 3 ms, and
the loop moves as many packets. Shorter is not better: with 5 us, threads that share a processor wait for each other's
time slices, and a loop that is mostly idle is held up for 4 ms.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["take_turns"]

_SWITCH_INTERVAL = 10e-6
"Seconds of waiting after which a thread demands the lock."
_TIMER_SLACK = 1000
"Nanoseconds that the kernel may add to the waits of the thread."
_PR_SET_TIMERSLACK = 29
"From prctl(2)."


def take_turns() -> None:
    """Let this thread demand the interpreter's lock soon.

    The switch interval is the whole process's: it makes a busy loop and its threads change places oftener, in both
    directions, while more than one of them wants to run. The timer slack is this thread's own, and Linux's.
    """
    sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_INTERVAL))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, _TIMER_SLACK)

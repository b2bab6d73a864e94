"""Become another program: drop privileges, tie its life to the owner's, execute.

Run as a script with `python -I -S`, because `preexec_fn` is unsafe in a process with threads. It
runs under the owner's interpreter, which the unprivileged account may be unable to execute, hence
drops privileges itself. Imports nothing of the project.

Arguments: the owner's pid, `uid:gid` or `-`, the signal to get when the owner dies (a number), the
program and its arguments.
"""

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Replace this process by the program."""
    owner_pid, account, death_signal, *command = sys.argv[1:]
    if account != "-":
        _drop_to(*(int(part) for part in account.split(":")))
    if sys.platform == "linux":
        # After the drop: changing the user id clears the death signal.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
    # An owner that died before the line above sends no signal.
    if os.getppid() == int(owner_pid):
        os.execv(command[0], command)  # noqa: S606 - the point of it


def _drop_to(uid: int, gid: int) -> None:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


if __name__ == "__main__":
    main()

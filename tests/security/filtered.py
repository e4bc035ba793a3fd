"""Starts a program under a system call filter: filtered.py ALLOWED,... COMMAND... What makes any other call is killed (SIGSYS).

By libseccomp, which systemd and podman take too. Done as systemd does it: then the program takes the place of this one."""

import ctypes
import os
import sys

KILL_PROCESS, ALLOW = 0x80000000, 0x7FFF0000

library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
library.seccomp_init.restype = ctypes.c_void_p
library.seccomp_init.argtypes = [ctypes.c_uint32]
library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
library.seccomp_rule_add_array.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]
library.seccomp_load.argtypes = [ctypes.c_void_p]


def main(allowed, command):
    context = library.seccomp_init(KILL_PROCESS)
    added = 0
    for name in allowed.split(","):
        number = library.seccomp_syscall_resolve_name(name.encode())
        # Those of other machines have no number here.
        if number >= 0:
            added += library.seccomp_rule_add_array(context, ALLOW, number, 0, None) == 0
    assert added > 100, f"only {added} calls are known here"
    if library.seccomp_load(context) != 0:
        sys.exit("the filter cannot be set")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

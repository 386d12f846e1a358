"""``python -I -S inside.py LIMITS CODE FD``: run ``CODE`` where it sees no file, process or network of this machine.

A script that imports the standard library alone; started by :mod:`trainer.tasks.sandbox.start`. Linux namespaces give
a file system of its own (a small tmpfs with the system's libraries and Python, read-only; no /proc, no /sys), no
network, its own process ids. Under root every program gets a user id that nobody else has, else a user namespace.
Nothing is left to it that could undo this: no capability, no set-user-id, and no further user namespace, which the
kernel refuses to a process with a changed root (``chroot`` below).
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from typing import Any

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
REC, PRIVATE, BIND, NOSUID, NODEV, DETACH = 0x4000, 0x40000, 0x1000, 2, 4, 2
SET_DUMPABLE, SET_PDEATHSIG, CAPBSET_DROP, SET_SECUREBITS, SET_NO_NEW_PRIVS = 4, 1, 24, 28, 38
NOROOT_LOCKED = 3
MOUNT_SETATTR, PIVOT_ROOT = 442, {"x86_64": 155, "aarch64": 41}
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
REFUSED = 97
"""Exit code where the isolation could not be had; the reason is on stderr."""

libc = ctypes.CDLL(None, use_errno=True)


def must(done: int, what: str) -> None:
    """Raise OSError if a call of the C library failed."""
    if done != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    """mount(2)."""
    must(
        libc.mount(source.encode(), target.encode(), kind and kind.encode(), ctypes.c_ulong(flags), options.encode()),
        f"mount {target}",
    )


def main() -> None:
    """Isolate, run, and exit as the program did."""
    libc.prctl(SET_PDEATHSIG, signal.SIGKILL)
    limits: dict[str, Any] = json.loads(sys.argv[1])
    identity = 1_000_000_000 + os.getpid()  # no two live at once, so that a limit on processes is on one program's
    root = os.geteuid() == 0
    try:
        _unshare(root)
        supervisor = os.fork()
    except OSError as error:
        _refuse(error)
    if supervisor:
        for descriptor in (0, 1, int(sys.argv[3])):
            os.close(descriptor)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(supervisor, 0)[1]) & 255)
    try:
        _new_root(limits)
        _drop(identity if root else None)
        program = os.fork()
    except OSError as error:
        _refuse(error)
    if program:
        _supervise(program, limits["seconds"])
    _limit(limits)
    os.execve(limits["python"], [limits["python"], "-I", "-S", "-c", *sys.argv[2:]], {"LANG": "C.UTF-8"})


def _refuse(error: OSError) -> None:
    os.write(2, str(error).encode())
    os._exit(REFUSED)


def _unshare(root: bool) -> None:
    user, group = os.getuid(), os.getgid()
    flags = NEWNS | NEWUTS | NEWIPC | NEWPID | NEWNET
    must(libc.unshare(flags if root else flags | NEWUSER), "unshare")
    if not root:
        for name, line in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(line)
    try:  # no System V shared memory, which no limit counts
        with open("/proc/sys/kernel/shmmni", "w") as file:
            file.write("0")
    except OSError:
        pass  # kernels before 5.19 keep this for root


def _new_root(limits: dict[str, Any]) -> None:
    """Only ``limits["roots"]``, read-only, a few devices and ``/tmp``."""
    mount("none", "/", None, REC | PRIVATE)
    mount("tmpfs", "/tmp", "tmpfs", NOSUID | NODEV, f"size={limits['files']},nr_inodes=4096,mode=755")
    for name in ("old", "box"):
        os.mkdir(f"/tmp/{name}")
    os.chdir("/tmp")
    must(libc.syscall(PIVOT_ROOT[os.uname().machine], b".", b"old"), "pivot_root")
    os.chdir("/")
    for path in (*limits["roots"], *DEVICES):
        _show(path)
    os.mkdir("/box/tmp")
    os.chmod("/box/tmp", 0o777)
    must(libc.umount2(b"/old", DETACH), "umount")
    os.chdir("/box")
    os.chroot(".")
    os.chdir("/tmp")


def _show(path: str) -> None:
    source, target = "/old" + path, "/box" + path
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(source):
        os.symlink(os.readlink(source), target)
        return
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.close(os.open(target, os.O_CREAT))
    mount(source, target, None, BIND | REC)
    if path not in DEVICES:
        # read-only, no set-user-id, no devices, in all that is mounted below
        attributes = (ctypes.c_uint64 * 4)(1 | 2 | 4, 0, 0, 0)
        must(
            libc.syscall(MOUNT_SETATTR, -100, target.encode(), 0x8000, ctypes.byref(attributes), ctypes.c_size_t(32)),
            f"make {path} read-only",
        )


def _drop(identity: int | None) -> None:
    """Lose every privilege for good."""
    must(libc.prctl(SET_SECUREBITS, NOROOT_LOCKED, 0, 0, 0), "securebits")  # user 0 gains nothing by an exec
    for capability in range(64):
        libc.prctl(CAPBSET_DROP, capability, 0, 0, 0)  # fails beyond the last that the kernel knows
    if identity is not None:
        os.setgroups([])
        os.setresgid(identity, identity, identity)
        os.setresuid(identity, identity, identity)
    # version 3, this process; no effective, permitted or inheritable capability
    must(libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()), "capset")
    must(libc.prctl(SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    # Out of reach of the program's ptrace, and gone with the trainer; a change of the user id undoes both.
    must(libc.prctl(SET_DUMPABLE, 0, 0, 0, 0), "dumpable")
    must(libc.prctl(SET_PDEATHSIG, signal.SIGKILL), "pdeathsig")


def _supervise(program: int, seconds: float) -> None:
    """Wait as process 1, whose end ends all; no signal of the program reaches it but the alarm, which ends it too."""
    for descriptor in (0, 1, int(sys.argv[3])):
        os.close(descriptor)
    signal.signal(signal.SIGALRM, lambda *_: os._exit(124))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    while True:
        ended, status = os.wait()
        if ended == program:
            os._exit(os.waitstatus_to_exitcode(status) & 255)


def _limit(limits: dict[str, Any]) -> None:
    os.setsid()
    cpu = max(1, int(limits["seconds"] + 0.999))
    for name, value in (
        ("CORE", 0), ("MEMLOCK", 0), ("MSGQUEUE", 0), ("CPU", cpu), ("AS", limits["memory"]),
        ("FSIZE", limits["files"]), ("NOFILE", 32), ("NPROC", limits["processes"]),
    ):  # fmt: skip
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))


if __name__ == "__main__":
    main()

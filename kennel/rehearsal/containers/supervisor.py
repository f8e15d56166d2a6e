"""Starts one program and makes sure that it ends: `python -I -S supervisor.py`. Standard library only.

The parent process writes to standard input: first one line, the spec of the program as JSON. Each byte after that
sends SIGTERM to the program. The end of the stream, which comes with the parent's death however it dies, kills the
program and all its descendants. Signals that a terminal sends to the parent do not arrive here: the parent starts
the supervisor in a session of its own.

With `namespaces` the program is PID 1 of a private PID, mount and UTS namespace, so its end is also the end of every
descendant; without, descendants are killed as its process group.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

NEWNS, NEWUTS, NEWUSER, NEWPID, NEWNET = 0x20000, 0x4000000, 0x10000000, 0x20000000, 0x40000000
_MS_BIND, _MS_REC, _MS_PRIVATE, _MS_SAFE = 0x1000, 0x4000, 0x40000, 0xE  # _MS_SAFE: nosuid, nodev, noexec
_SIOCSIFFLAGS, _IFF_UP_RUNNING = 0x8914, 0x41
_PR_SET_PDEATHSIG = 1
CANNOT_START = 126  # what a shell answers for a program that it cannot run


def main(spec: dict[str, Any]) -> int:
    """Return the program's exit code, 128 + n for signal n, or CANNOT_START."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _enter(spec)
    except OSError as error:
        print(f"No private namespace: {error}", file=sys.stderr)
        return CANNOT_START
    if not spec["command"]:  # this process only keeps its network open for others
        print("ready", flush=True)
        while os.read(0, 1):
            pass
        return 0
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    child = os.fork()
    if child == 0:
        _exec(spec)
    code = os.waitstatus_to_exitcode(_supervise(child, ended))
    _kill(os.killpg, child)  # what the program left behind in its group
    if spec["afterwards"]:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.spawnvpe(os.P_WAIT, spec["afterwards"][0], spec["afterwards"], spec["environment"])
    return code if code >= 0 else 128 - code


def _supervise(child: int, ended: int) -> int:
    """Forward signals until the child ends; return its wait status. (The kernel allows no thread after unshare.)"""
    while True:
        ready, _, _ = select.select([0, ended], [], [])
        if ended in ready:
            os.read(ended, 64)
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                return status
        elif os.read(0, 1):
            os.kill(child, signal.SIGTERM)
        else:
            _kill(os.killpg, child)
            _kill(os.kill, child)  # it may not yet have made its group
            return os.waitpid(child, 0)[1]


def _kill(kill: Callable[[int, int], None], child: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # ended already
        kill(child, signal.SIGKILL)


def _enter(spec: dict[str, Any]) -> None:
    """Move this process into the namespaces; the PID namespace begins with its first child."""
    namespaces = spec["namespaces"]
    for path in spec["join"]:
        descriptor = os.open(path, os.O_RDONLY)
        _check(_libc().setns(descriptor, 0), path)
        os.close(descriptor)
    if not namespaces:
        return
    user, group = os.geteuid(), os.getegid()
    _check(_libc().unshare(namespaces), "unshare")
    if namespaces & NEWUSER:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    if namespaces & NEWNET:
        _loopback_up()


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", _IFF_UP_RUNNING))


def _exec(spec: dict[str, Any]) -> None:
    """In the child: mount the file systems, then replace this process by the program."""
    try:
        os.setsid()
        if sys.platform == "linux":
            _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if spec["namespaces"] & NEWNS:
            _mount_all(spec)
        os.chdir(spec["cwd"])
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.execvpe(spec["command"][0], spec["command"], spec["environment"])
    except OSError as error:
        print(f"Cannot start {spec['command'][0]}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(CANNOT_START)


def _mount_all(spec: dict[str, Any]) -> None:
    socket.sethostname(spec["host"])
    _mount("none", "/", _MS_REC | _MS_PRIVATE)
    root = spec["root"]
    if not root and not Path("/opt/ml").is_dir():
        _rebuild_opt(Path(spec["scratch"]))
    _mount("proc", f"{root}/proc", _MS_SAFE, kind="proc")
    for source, target in spec["mounts"]:
        if root:
            _create_mount_point(Path(source), Path(root + target))
        _mount(source, root + target, _MS_BIND | _MS_REC)
    if root:
        os.chroot(root)


def _create_mount_point(source: Path, target: Path) -> None:
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()


def _rebuild_opt(scratch: Path) -> None:
    """Give this namespace an /opt with a folder `ml` in it; the machine's own /opt stays as it is."""
    _mount("tmpfs", str(scratch), 0, kind="tmpfs")
    for entry in Path("/opt").iterdir():
        copy = scratch / entry.name
        if entry.is_symlink():
            copy.symlink_to(entry.readlink())
            continue
        _create_mount_point(entry, copy)
        _mount(str(entry), str(copy), _MS_BIND | _MS_REC)
    (scratch / "ml").mkdir()
    _mount(str(scratch), "/opt", _MS_BIND | _MS_REC)


def _mount(source: str, target: str, flags: int, kind: str = "") -> None:
    result = _libc().mount(source.encode(), target.encode(), kind.encode() or None, flags, None)
    _check(result, f"mount {target}")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), what)


if __name__ == "__main__":
    with open(0, "rb", buffering=0, closefd=False) as stream:  # unbuffered: what follows the line is for select
        first = stream.readline()
    sys.exit(main(json.loads(first)) if first else 0)

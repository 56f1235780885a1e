"""Which files a process and all that it starts open, and which addresses they ask, by `strace` where there is one."""

import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

_CALLS = "open,openat,openat2,execve,connect,sendto,sendmsg"
_CODE = Path(__file__).parents[1]
_UUID = "/var/lib/libuuid"  # where the system's library keeps a clock
_OPENED = re.compile(r'(?:open|openat2?|execve)\((?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
_ASKED = re.compile(r'sin6?_port=htons\((\d+)\).*?"([0-9a-fA-F.:]+)"')
_NUMBERED = re.compile(r"^/proc/(\d+|self)(/task/\d+)?")


@dataclass(frozen=True)
class Touched:
    """`files`: absolute; `addresses`: HOST:PORT. Attempts that fail are in them too."""

    files: frozenset[str] = frozenset()
    addresses: frozenset[str] = frozenset()

    def joined(self, other: "Touched") -> "Touched":
        return Touched(self.files | other.files, self.addresses | other.addresses)

    def beyond(self, usual: "Touched", folder: Path, address: str) -> list[str]:
        """What lies neither below `folder`, nor with Python's own, nor where files are opened anyway; who is asked but
        `address`.
        """
        below = tuple(f"{root}/" for root in (folder, sys.prefix, sys.base_prefix, _CODE, _UUID))
        folders = {Path(path).parent for path in usual.files}
        files = [path for path in self.files if not f"{path}/".startswith(below)]
        return [
            *(f"{path} was opened" for path in sorted(files) if Path(path).parent not in folders),
            *(f"{asked} was asked" for asked in sorted(self.addresses - usual.addresses - {address})),
        ]


def strace(log: Path) -> list[str]:
    """What to write before a command, so that `touched(log)` can tell; nothing where there is no strace."""
    if not shutil.which("strace"):
        return []
    return ["strace", "-f", "-y", "-qq", "--seccomp-bpf", "-e", f"trace={_CALLS}", "-o", str(log)]


def touched(log: Path) -> Touched:
    files, addresses = set(), set()
    for line in log.read_text(errors="replace").splitlines() if log.exists() else ():
        if found := _OPENED.search(line):
            path = os.path.normpath(Path(found[1] or "/", _decoded(found[2])))
            files.add(_NUMBERED.sub("/proc/N", path))
        elif "AF_INET" in line and (asked := _ASKED.search(line)):
            addresses.add(f"{asked[2]}:{asked[1]}")
    return Touched(frozenset(files), frozenset(addresses))


def _decoded(text: str) -> str:
    return text.encode().decode("unicode_escape").encode("latin-1", "replace").decode("utf-8", "replace")

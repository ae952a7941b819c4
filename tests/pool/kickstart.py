"""A stand-in for pegasus-kickstart, for tests alone: runs one program and prints the record of it.

The record has the layout of kickstart's own YAML (version 3.0), so that the doctor, pegasus-exitcode
and pegasus-monitord read it like a real one. It is started as a program, with nothing but the
standard library, and understands the options that a planned job uses:
`-n NAME -N ID -R SITE -L LABEL -T STAMP -i FILE -S @LIST -s @LIST -k SECONDS -K SECONDS PROGRAM [WORD...]`.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import resource
import shlex
import shutil
import signal
import stat
import sys
import tempfile
import time
from dataclasses import dataclass
from types import FrameType

_WITH_VALUE = "nNRLTiSskKBwoelWDEI"
_KEPT = 256 << 10  # bytes of standard output and error that a record holds
_FATAL = (
    "FATAL: Unable to execute the specified binary. It might not exist, have the correct "
    "permissions, or be of the right type for the current system.\n"
)


@dataclass
class Child:
    """How one process ended."""

    arguments: list[str]
    pid: int = 0
    began: float = 0.0
    seconds: float = 0.0
    raw: int = 0
    error: str = ""
    usage: resource.struct_rusage | None = None


def options(words: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """The options by letter, and the program with its arguments."""
    found: dict[str, list[str]] = {}
    index = 0
    while index < len(words) and words[index].startswith("-") and len(words[index]) > 1:
        letter, value = words[index][1], words[index][2:]
        if letter in _WITH_VALUE and not value:
            index += 1
            value = words[index] if index < len(words) else ""
        found.setdefault(letter, []).append(value)
        index += 1
    return found, words[index:]


def run(arguments: list[str], stdin: int, stdout: int, stderr: int, limit: float = 0.0, grace: float = 5.0) -> Child:
    """Runs a program to its end; after `limit` seconds it is asked to stop, `grace` seconds later it is killed."""
    child = Child(arguments, began=time.time())
    pid = os.fork()
    if pid == 0:
        for number, handle in ((0, stdin), (1, stdout), (2, stderr)):
            os.dup2(handle, number)
        try:
            os.execv(arguments[0], arguments)
        except OSError as problem:
            os.write(2, f"execv: {problem.strerror}\n".encode())
        os._exit(127)
    child.pid = pid
    if limit:
        _guard(pid, limit, grace)
    while True:
        try:
            _, child.raw, child.usage = os.wait4(pid, 0)
            break
        except InterruptedError:
            continue
    signal.setitimer(signal.ITIMER_REAL, 0)
    child.seconds = time.time() - child.began
    return child


def _guard(pid: int, limit: float, grace: float) -> None:
    asked: list[float] = []

    def late(number: int, frame: FrameType | None) -> None:
        if not asked:
            asked.append(time.time())
            sys.stderr.write("Job timed out, sending SIGTERM\n")
            os.kill(pid, signal.SIGTERM)
            signal.setitimer(signal.ITIMER_REAL, grace)
        else:
            sys.stderr.write("Job still running, sending SIGKILL\n")
            os.kill(pid, signal.SIGKILL)

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, limit)


# -- the record -----------------------------------------------------------------------------------------


def when(seconds: float, fraction: bool = False) -> str:
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{text}.{int(seconds % 1 * 1000):03d}+00:00" if fraction else f"{text}+00:00"


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def owner(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def status(raw: int, error: str = "") -> list[str]:
    """The lines below `status:` for a wait status."""
    rows = [f"      raw: {raw}"]
    if error:
        rows.append(f"      failure_error: {error}")
    elif os.WIFSIGNALED(raw):
        number = os.WTERMSIG(raw)
        rows += [f"      signalled_signal: {number}", f"      singalled_name: {quoted(signal.strsignal(number) or '')}"]
        rows.append(f"      corefile: {'true' if os.WCOREDUMP(raw) else 'false'}")
    else:
        rows.append(f"      regular_exitcode: {os.WEXITSTATUS(raw)}")
    return rows


def facts(info: os.stat_result) -> list[str]:
    """What `stat` knows of a file, as below `files:` and `executable:`."""
    user = owner(info.st_uid)
    return [
        f"      mode: 0o{info.st_mode:o}",
        f"      size: {info.st_size}",
        f"      inode: {info.st_ino}",
        f"      nlink: {info.st_nlink}",
        f"      blksize: {info.st_blksize}",
        f"      blocks: {info.st_blocks}",
        f"      mtime: {when(info.st_mtime)}",
        f"      atime: {when(info.st_atime)}",
        f"      ctime: {when(info.st_ctime)}",
        f"      uid: {info.st_uid}",
        f"      user: {user}",
        f"      gid: {info.st_gid}",
        f"      group: {user}",
    ]


def usage(found: resource.struct_rusage | None, indent: str) -> list[str]:
    values = {
        "utime": f"{found.ru_utime:.3f}" if found else "0.000",
        "stime": f"{found.ru_stime:.3f}" if found else "0.000",
        "maxrss": found.ru_maxrss if found else 0,
        "minflt": found.ru_minflt if found else 0,
        "majflt": found.ru_majflt if found else 0,
        "nswap": 0,
        "inblock": found.ru_inblock if found else 0,
        "outblock": found.ru_oublock if found else 0,
        "msgsnd": 0,
        "msgrcv": 0,
        "nsignals": 0,
        "nvcsw": found.ru_nvcsw if found else 0,
        "nivcsw": found.ru_nivcsw if found else 0,
    }
    return [f"{indent}usage:", *(f"{indent}  {name}: {value}" for name, value in values.items())]


def step(name: str, child: Child, executable: str) -> list[str]:
    """One of `mainjob:` and `cleanup:`."""
    rows = [f"  {name}:", f"    start: {when(0.0 if child.error else child.began, True)}", f"    duration: {child.seconds:.3f}"]
    rows += [f"    pid: {child.pid}"] if child.pid else []
    rows += [
        *usage(child.usage, "    "),
        "    status:",
        *status(child.raw, child.error),
        "    executable:",
        f"      file_name: {executable}",
    ]
    try:
        rows += facts(os.stat(executable))
    except OSError as problem:
        rows.insert(len(rows) - 1, f"      error: {problem.errno}")
    rows.append("    argument_vector:")
    return [*rows, *(f"      - {quoted(word)}" for word in child.arguments[1:]), "    procs:"]


def listed(names: list[str]) -> list[tuple[str, str]]:
    """(logical name, path) of every file in the lists given with -S or -s."""
    found = []
    for name in names:
        with open(os.path.expandvars(name.lstrip("@")), encoding="utf-8") as lines:
            found += [(lfn, path or lfn) for lfn, _, path in (line.strip().partition("=") for line in lines) if lfn]
    return found


def file_rows(lfn: str, path: str, output: bool) -> list[str]:
    rows = [f"    {lfn}:"]
    try:
        info = os.stat(path)
    except OSError as problem:
        return [*rows, f"      error: {problem.errno}", f"      lfn: {quoted(lfn)}", f"      file_name: {path}"]
    rows += [f"      lfn: {quoted(lfn)}", f"      file_name: {os.path.abspath(path)}", *facts(info)]
    if output:
        rows.append("      output: True")
        if stat.S_ISREG(info.st_mode):
            with open(path, "rb") as handle:
                rows += [f"      sha256: {hashlib.sha256(handle.read()).hexdigest()}", "      checksum_timing: 0.00"]
    return rows


def stream_rows(name: str, path: str, number: int, data: bool = True) -> list[str]:
    """`stdout:` or `stderr:` with the end of what was printed."""
    rows = [f"    {name}:", f"      temporary_name: {path}", f"      descriptor: {number}", *facts(os.stat(path))]
    with open(path, "rb") as handle:
        content = handle.read()
    if content and data:
        text = content[-_KEPT:].decode("utf-8", "replace")
        text = "".join(char if char >= " " or char in "\t\n" else "?" for char in text.replace("\r\n", "\n").replace("\r", "\n"))
        rows += [f"      data_truncated: {'true' if len(content) > _KEPT else 'false'}", "      data: |"]
        rows += [f"        {line}" for line in text.split("\n")]
    return rows


def machine() -> list[str]:
    system = os.uname()
    memory = {}
    with open("/proc/meminfo", encoding="ascii", errors="replace") as lines:
        for line in lines:
            name, _, rest = line.partition(":")
            memory[name] = rest.split()[0]
    return [
        "  machine:",
        "    page-size: 4096",
        "    uname_system: linux",
        f"    uname_nodename: {system.nodename.split('.')[0]}",
        f"    uname_release: {system.release}",
        f"    uname_machine: {system.machine}",
        f"    ram_total: {memory.get('MemTotal', 0)}",
        f"    ram_free: {memory.get('MemFree', 0)}",
        f"    cpu_count: {os.cpu_count()}",
    ]


def trouble() -> list[str]:
    """Environment and limits, which only the record of a failure has."""
    rows = ["  environment:", *(f"    {quoted(name)}: {quoted(value)}" for name, value in sorted(os.environ.items())), "  limits:"]
    for name in ("CPU", "FSIZE", "DATA", "STACK", "CORE", "NPROC", "NOFILE", "MEMLOCK", "AS"):
        pair = resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))
        for kind, value in zip(("soft", "hard"), pair, strict=True):
            rows.append(f"    RLIMIT_{name}_{kind}: {'unlimited' if value == resource.RLIM_INFINITY else value}")
    return rows


def main(words: list[str]) -> int:
    """Runs the program, prints the record, and returns the program's exit code as kickstart does."""
    given, command = options(words)
    one = {letter: values[-1] for letter, values in given.items()}
    began = time.time()
    folder = tempfile.gettempdir()
    streams = {name: tempfile.mkstemp(prefix=f"ks.{name}.", dir=folder) for name in ("out", "err", "meta")}
    stdin = os.dup(0) if one.get("i") == "-" else os.open(one.get("i") or os.devnull, os.O_RDONLY)
    executable = command[0] if "/" in command[0] else shutil.which(command[0]) or command[0]
    full = os.path.abspath(executable)
    if not os.access(executable, os.X_OK) or os.path.isdir(executable):
        missing = not os.path.exists(executable)
        main_ = Child([executable, *command[1:]], raw=-127, error="2   No such file or directory" if missing else "13   Permission denied")
        sys.stderr.write(_FATAL)
    else:
        limit, grace = float(one.get("k") or 0), float(one.get("K") or 5)
        main_ = run([executable, *command[1:]], stdin, streams["out"][0], streams["err"][0], limit, grace)
    files = [row for lfn, path in listed(given.get("S", [])) for row in file_rows(lfn, path, False)]
    files += [row for lfn, path in listed(given.get("s", [])) for row in file_rows(lfn, path, True)]
    user = owner(os.getuid())
    rows = ["- invocation: True", "  version: 3.0", f"  start: {when(began, True)}", f"  duration: {time.time() - began:.3f}"]
    rows += [f"  transformation: {quoted(one.get('n', 'null'))}", f"  derivation: {quoted(one.get('N', 'null'))}"]
    rows += [
        f"  resource: {quoted(one.get('R', ''))}",
        f"  wf-label: {quoted(one.get('L', ''))}",
        f"  wf-stamp: {quoted(one.get('T', ''))}",
    ]
    rows += ["  interface: lo", "  hostaddr: 127.0.0.1", f"  pid: {os.getpid()}", f"  uid: {os.getuid()}", f"  user: {user}"]
    rows += [f"  gid: {os.getgid()}", f"  group: {user}", "  umask: 0o0022", *step("mainjob", main_, full)]
    if cleanup := shlex.split(os.environ.get("GRIDSTART_CLEANUP", "")):
        rows += step("cleanup", run(cleanup, stdin, 2, 2), os.path.realpath(cleanup[0]))
    rows += ["  jobids:", f"    condor: {os.environ.get('CONDOR_JOBID', '')}", f"  cwd: {os.getcwd()}"]
    rows += [*usage(resource.getrusage(resource.RUSAGE_SELF), "  "), *machine(), "  files:", *files]
    rows += [
        "    stdin:",
        "      file_name: /dev/null",
        *stream_rows("stdout", streams["out"][1], 3),
        *stream_rows("stderr", streams["err"][1], 4),
    ]
    rows += stream_rows("metadata", streams["meta"][1], 5, data=False)
    if main_.raw:
        rows += [
            "    kickstart:",
            "      error: 2",
            "      note: ignore error - it is just a warning",
            "      file_name: pegasus-kickstart",
        ]
        rows += trouble()
    sys.stdout.write("\n".join(rows) + "\n")
    for handle, path in streams.values():
        os.close(handle)
        os.unlink(path)
    if main_.raw < 0:
        return 127
    return 128 + os.WTERMSIG(main_.raw) if os.WIFSIGNALED(main_.raw) else os.WEXITSTATUS(main_.raw)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

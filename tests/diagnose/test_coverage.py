"""Breadth: every hold code and every documented message template of Pegasus and HTCondor is known to a rule."""

from __future__ import annotations

import pytest

from doctor.diagnose.explain import explain
from doctor.diagnose.matcher import Matcher
from doctor.model import Channel, Kind, Line

#: Codes of a job that waits for its input to be spooled, not of a failure.
NOT_A_FAILURE = {0, 16}
CODES = [code for code in range(1, 50) if code not in NOT_A_FAILURE]


@pytest.mark.parametrize("code", CODES)
def test_every_hold_code_is_known(code: int, matcher: Matcher) -> None:
    channel = Channel(Kind.HOLD, "wf.log", (Line("some site's own wording", 1),), hold=(code, 0))
    assert matcher.match(channel), f"no rule knows hold code {code}"


#: (kind of ``explain``, message, categories of which the first answer must be one). Wordings: Pegasus 5.1 and
#: HTCondor 23.9 sources, and observed runs.
TEMPLATES = [
    ("pegasus-transfer", "ERROR:  Expected local file does not exist: /data/f.a", "staging"),
    ("pegasus-transfer", "ERROR:  File is not readable: /data/f.a", "permissions"),
    ("pegasus-transfer", "ERROR:  Symlink source (/data/f.a) does not exist", "staging"),
    ("pegasus-transfer", "ERROR:  Moveto source (/data/f.a) does not exist", "staging"),
    ("pegasus-transfer", "ln: src (/data/f.a) does not exist, or we do not have permission to read it", "staging"),
    ("pegasus-transfer", "ERROR:  Command exited with non-zero exit code (4): /usr/bin/wget -nv -O x http://h/x", "staging"),
    ("pegasus-transfer", "ERROR:  Command timed out after 21600 seconds: /usr/bin/scp a b", "staging"),
    ("pegasus-transfer", "Unable to do http/https transfers because neither curl nor wget could not be found", "dependency"),
    ("pegasus-transfer", "Unable to do gsiftp transfers because gfal-copy/globus-url-copy could not be found", "dependency"),
    ("pegasus-transfer", "Unable to do hpss transfers because htar could not be found", "dependency"),
    ("pegasus-transfer", "Unable to do irods transfers becuase iget could not be found in the current path", "dependency"),
    ("pegasus-transfer", "Unable to do S3 transfers because pegasus-s3 could not be found", "dependency"),
    ("pegasus-transfer", "Unable to locate pegasus-globus-online in the $PATH", "dependency"),
    ("pegasus-transfer", "Unable to do Google Storage transfers because the gsutil tool could not be found", "dependency"),
    ("pegasus-transfer", "Unable to do xrootr/srm transfers because gfal-copy could not be found", "dependency"),
    ("pegasus-transfer", "Unable to do OSDF transfers because pelican/stashcp could not be found", "dependency"),
    ("pegasus-transfer", "Unable to do webdav transfers because curl could not be found", "dependency"),
    ("pegasus-transfer", "Downloaded file is 0 bytes - marking transfer as failed", "staging"),
    ("pegasus-transfer", "Expected local file is missing - marking transfer as failed", "staging"),
    ("pegasus-transfer", "Unable to find handlers for 'gopher' to 'file' transfers", "staging"),
    ("pegasus-transfer", "Unable to parse URL: htp:/x", "staging planner"),
    ("pegasus-transfer", "CRITICAL:  Some transfers failed! See above, and possibly stderr.", "staging"),
    ("pegasus-transfer", "2026-11-20 21:00:12 ERROR 404: File not found.", "staging"),
    ("pegasus-transfer", "Connecting to 192.0.2.1:80... failed: Connection refused.", "staging"),
    ("pegasus-transfer", "/bin/cp: cannot create regular file '/out/f.b': Permission denied", "permissions"),
    ("pegasus-transfer", "Unable to do pull Docker images as docker command could not be found", "container"),
    ("pegasus-transfer", "Unable to do pull Singularity images as unable to find either apptainer or singularity commands", "container"),
    ("pegasuslite-err", "Unable to find apptainer or singularity executable", "container"),
    ("pegasuslite-err", "Unable to load image from image.tar", "container"),
    ("job-stderr", "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?", "container"),
    ("hold-reason", "Singularity test failed:", "container"),
    ("hold-reason", "Docker job has gone over memory limit of 128 Mb", "resources"),
    ("planner", "Transformation train refers to non existent container cont", "container planner"),
    (
        "pegasuslite-err",
        "Integrity check: f.b: Expected checksum (aa) does not match the calculated checksum (bb) (timing: 0.1)",
        "integrity",
    ),
    ("pegasuslite-err", "No checksum in the meta data for f.b", "integrity"),
    ("pegasuslite-err", "Unable to open metadata file: x.meta", "integrity"),
    ("pegasuslite-err", "openssl or sha256sum not found!", "dependency integrity"),
    ("pegasus-transfer", "Unable to do integrity checking because pegasus-integrity not found", "dependency integrity"),
    ("kickstart", "detected integrity creation errors in the job", "integrity"),
    ("pegasuslite-err", "  Workdir: not enough disk space available in /tmp", "disk"),
    ("pegasuslite-err", "  Workdir: not allowed to write to /scratch", "permissions"),
    ("job-stderr", "OSError: [Errno 28] No space left on device", "disk"),
    ("job-stderr", "cp: error writing 'x': Disk quota exceeded", "disk"),
    ("hold-reason", "Job has exceeded allocated disk (5120). Consider increasing the value of request_disk.", "resources"),
    ("planner", "Unable to write to directory /runs", "permissions planner"),
    ("pegasus-transfer", "Credentials file does not exist: /home/u/.pegasus/credentials.conf", "credentials"),
    ("pegasus-transfer", "Permissions of credentials file /home/u/.pegasus/credentials.conf are too liberal", "credentials"),
    (
        "pegasus-transfer",
        "At least one of the PEGASUS_CREDENTIALS_cloud or PEGASUS_CREDENTIALS environment variables has to be set",
        "credentials",
    ),
    ("pegasus-transfer", "Missing IRODS_ENVIRONMENT_FILE - unable to do irods transfers", "credentials"),
    ("pegasus-transfer", "X509 proxy file /tmp/x509up_u1 does not exist. Maybe you forgot to initialize the proxy", "credentials"),
    ("pegasus-transfer", "Globus transfer_access_token is missing or expiring soon", "credentials"),
    ("pegasus-transfer", "Config file has no section for identity 'u@cloud'", "credentials"),
    ("dagman-out", "Grid proxy expired, please refresh", "credentials"),
    ("planner", "TransferEngine.java: Can't determine a location to transfer input file for lfn f.z for job j", "planner"),
    ("planner", "No source URL's available for stage-in( remote ) transfers for file f.a", "planner"),
    ("planner", "Site Selector could not map the job step_a with id a", "planner"),
    ("planner", 'There are no entries for the transformation "step" of type STAGEABLE', "planner"),
    ("planner", "Unable to find site catalog entry for staging site nowhere", "planner"),
    ("planner", "No storage directory specified for output site local", "planner"),
    ("planner", "Cyclic dependency detected a -> b", "planner"),
    ("planner", "Exception while parsing yaml file /w/workflow.yml", "planner"),
    ("planner", "DAX file for subworkflow does not exist inner.yml . Either set the --basename option", "planner"),
    ("planner", "Unable to find path to condor_submit_dag", "infrastructure planner dependency"),
    ("planner", "2026.11.20 20:38:26.896 UTC: [FATAL ERROR]  Out of Memory Error java.lang.OutOfMemoryError: Java heap space", "planner"),
    (
        "hold-reason",
        "Transfer input files failure at access point H while sending files to execution point S. "
        "Details: reading from file /d/f.a: (errno 2) No such file or directory",
        "staging",
    ),
    ("hold-reason", "Job has gone over cgroup memory limit of 128 megabytes. Last measured usage: 130 megabytes.", "resources"),
    ("hold-reason", "Error from slot1_1@vm: memory usage exceeded request_memory", "resources"),
    ("hold-reason", "The job exceeded allowed job duration of 00:10", "resources"),
    ("hold-reason", "via condor_hold (by user sci)", "policy"),
    ("condor-daemon", "via condor_rm (by user sci)", "policy"),
    ("hold-reason", "Failed to execute '/bin/step' with arguments -x: (errno=13: 'Permission denied')", "permissions"),
    ("hold-reason", "Cannot access initial working directory /gone: No such file or directory", "permissions staging"),
    ("hold-reason", "Failed to initialize user log to /gone/x.log", "permissions infrastructure disk"),
    ("dagman-out", "ERROR: submit attempt failed, errno=2 No such file or directory", "infrastructure"),
    ("dagman-out", "HTCondor DAGMan expects submit directories to be NOT NFS mounted", "infrastructure"),
    ("dagman-out", "DAGMan is gone! Sudden death syndrome detected!", "infrastructure"),
    ("pegasuslite-err", "ERROR: Unable to download a worker package for this platform (x86_64_deb_12).", "dependency"),
    ("pegasuslite-err", "PegasusLite: 1 failed to get system info", "dependency"),
    ("pegasuslite-err", "ERROR: Unable to find Python!", "dependency"),
    ("dagman-out", "pegausus-monitord not found", "infrastructure dependency"),
    ("job-stderr", "ModuleNotFoundError: No module named 'numpy'", "dependency"),
    ("job-stderr", "MemoryError", "resources"),
    ("job-stderr", "Segmentation fault (core dumped)", "user-code"),
    ("job-stderr", "PermissionError: [Errno 13] Permission denied: 'x'", "permissions"),
    ("job-stderr", "bash: line 1: samtools: command not found", "dependency"),
    (
        "job-stderr",
        "prog: error while loading shared libraries: libx.so.1: cannot open shared object file: No such file or directory",
        "dependency",
    ),
    ("kickstart", "execv: No such file or directory", "dependency"),
    ("job-stderr", "OSError: [Errno 24] Too many open files: 'x'", "resources"),
    ("job-stderr", "RuntimeError: can't start new thread", "resources"),
    ("job-stderr", "AssertionError: Torch not compiled with CUDA enabled", "dependency"),
    ("job-stderr", "ERROR: license server 27000@lic.example.org not reachable", "external"),
]


@pytest.mark.parametrize(("kind", "text", "categories"), TEMPLATES, ids=[text[:50] for _, text, _ in TEMPLATES])
def test_every_documented_message_is_known(kind: str, text: str, categories: str, matcher: Matcher) -> None:
    matches = explain(text.encode(), matcher, kind)
    assert matches, f"no rule knows: {text}"
    assert matches[0].cause.split("/")[0] in categories.split(), (matches[0].cause, matches[0].decided_by)


def test_the_library_is_broad(matcher: Matcher) -> None:
    assert len(matcher.library.rules) >= 150
    named = {rule.cause for rule in matcher.library.rules}
    by_structure = {"none/none", "staging/input-moved", "staging/premature-cleanup", "disk/cleanup-disabled", "disk/image-copies"}
    by_structure |= {"infrastructure/monitord-failed", "infrastructure/bad-node", "collision/shared-file-overwritten"}
    by_structure |= {"infrastructure/subworkflow-waiting", "infrastructure/workflow-stalled"}
    missing = set(matcher.library.causes) - named - by_structure
    assert not missing, f"causes that neither a rule nor structure can name: {sorted(missing)}"


@pytest.mark.parametrize(
    "words", ["Expected local file does not exist: /data/f.a", "Permission denied", "/bin/cp: 'x': File exists", "login refused"]
)
def test_a_time_stamp_decides_nothing(words: str, matcher: Matcher) -> None:
    """Milliseconds look like reply codes (550, 404) and must not be read as such."""
    seen = set()
    for milliseconds in range(1000):
        line = Line(f"2026-11-20 21:00:12,{milliseconds:03d}   ERROR:  {words}", 1)
        seen.add(tuple(sorted(finding.rule for finding in matcher.match(Channel(Kind.TRANSFER, "x.err", (line,))))))
    assert len(seen) == 1

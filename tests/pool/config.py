"""The configuration of a pool for tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

TEMPLATE = """\
# A pool for tests: every daemon on the loopback, quick to react, jobs from ordinary users.
RELEASE_DIR = {release}
LOCAL_DIR = {local}
BIN = {release}/bin
SBIN = {release}/sbin
LIB = {release}/lib/condor
LIBEXEC = {libexec}
LOCALTEMPLATE_DIR =
REQUIRE_LOCALTEMPLATE_FILE = False
LOG = $(LOCAL_DIR)/log
SPOOL = $(LOCAL_DIR)/spool
EXECUTE = $(LOCAL_DIR)/execute
LOCK = $(LOCAL_DIR)/lock
RUN = $(LOCAL_DIR)/run
{identity}
CONDOR_HOST = 127.0.0.1
COLLECTOR_HOST = 127.0.0.1:{port}
SHARED_PORT_PORT = {port}
NETWORK_INTERFACE = 127.0.0.1
BIND_ALL_INTERFACES = False
ENABLE_IPV6 = False
NO_DNS = True
DEFAULT_DOMAIN_NAME = local
UID_DOMAIN = local
TRUST_UID_DOMAIN = True
FILESYSTEM_DOMAIN = $(FULL_HOSTNAME)

use ROLE : CentralManager
use ROLE : Submit
use ROLE : Execute
use SECURITY : HOST_BASED
SEC_DEFAULT_AUTHENTICATION_METHODS = FS
ALLOW_READ = 127.0.0.1
ALLOW_WRITE = 127.0.0.1
ALLOW_ADMINISTRATOR = 127.0.0.1
ALLOW_NEGOTIATOR = 127.0.0.1
QUEUE_SUPER_USERS = root, {daemon_user}

use FEATURE : PartitionableSlot
NUM_CPUS = {cpus}
MEMORY = {memory_mb}
SLOT_TYPE_1 = cpus=100%,memory=100%,disk=100%
DETECTED_MEMORY = {memory_mb}
RESERVED_DISK = 0
START = True
SUSPEND = False
PREEMPT = False
KILL = False
MachineMaxVacateTime = 3
JOB_DEFAULT_REQUESTDISK = 1024
use POLICY : HOLD_IF_MEMORY_EXCEEDED

NEGOTIATOR_INTERVAL = 5
NEGOTIATOR_CYCLE_DELAY = 1
NEGOTIATOR_MIN_INTERVAL = 1
SCHEDD_INTERVAL = 5
SCHEDD_MIN_INTERVAL = 1
UPDATE_INTERVAL = 5
PROCD_MAX_SNAPSHOT_INTERVAL = 10
DISK = {disk_kb}
COLLECTOR_UPDATE_INTERVAL = 10
STARTER_UPDATE_INTERVAL = 5
STARTER_INITIAL_UPDATE_INTERVAL = 2
SHADOW_QUEUE_UPDATE_INTERVAL = 5
PERIODIC_EXPR_INTERVAL = 3
MAX_PERIODIC_EXPR_INTERVAL = 5
CLAIM_WORKLIFE = 0
JOB_START_COUNT = 20
JOB_START_DELAY = 0
SCHEDD_HOST =
SHUTDOWN_GRACEFUL_TIMEOUT = 10
DAGMAN_USER_LOG_SCAN_INTERVAL = 1
DAGMAN_MAX_SUBMITS_PER_INTERVAL = 50
MAX_SCHEDD_LOG = 20 Mb
{extra}
"""


@dataclass(frozen=True)
class PoolSettings:
    """What a test may choose about its pool; the resources of a node are made up.

    A planned Pegasus job asks for 2 GB of memory and 5 GB of disk unless told otherwise. `nodes` are further
    execute nodes on this machine, each by its host name with the settings that it has for itself.
    """

    cpus: int = 16
    memory_mb: int = 65536
    disk_kb: int = 1_000_000_000
    extra: Mapping[str, str] = field(default_factory=dict)
    nodes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    start_seconds: float = 90.0

    def node_lines(self) -> list[str]:
        """The configuration of the further nodes: one startd each, all below the one master.

        A daemon's host name is settled before it reads what is set for its local name alone, so a node gets its
        name, like everything else of its own, through the environment of its startd.
        """
        rows = []
        for name, own in self.nodes.items():
            mark = name.partition(".")[0].upper()
            settings = {"NETWORK_HOSTNAME": name, "EXECUTE": f"$(LOCAL_DIR)/{execute_folder(name)}", **own}
            words = " ".join(f"_CONDOR_{key}='{value}'" for key, value in settings.items())
            rows += [
                f"DAEMON_LIST = $(DAEMON_LIST) STARTD_{mark}",
                f"STARTD_{mark} = $(STARTD)",
                f"STARTD_{mark}_ARGS = -local-name {mark}",
                f'STARTD_{mark}_ENVIRONMENT = "{words}"',
                f"STARTD.{mark}.STARTD_LOG = $(LOG)/StartLog.{mark}",
            ]
        return rows


def execute_folder(node: str) -> str:
    """Where the jobs of a further node run, below the pool's local folder."""
    return f"execute-{node.partition('.')[0]}"

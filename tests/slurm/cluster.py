"""A real Slurm on this machine: munge, MariaDB, slurmdbd, slurmctld and two nodes, in one folder and on free ports.

Outside the folder only one thing is touched, a link /etc/slurm/slurm.conf, because the executor plugin takes SLURM_CONF
out of the environment of its jobs. Needs root, because slurmd makes a cgroup for each job: that is what ends a job that
takes more memory than it asked for.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = ("munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd", "sbatch", "sacct", "scancel")
PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"
NAME = "edgelooptest"
NODES = ("n1", "n2")
NODE_CPUS, NODE_MB = 8, 8000

SLURM_CONF = """\
ClusterName={name}
SlurmctldHost=localhost
SlurmctldPort={slurmctld_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
MpiDefault=none
SwitchType=switch/none
ReturnToService=1
ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
DefMemPerCPU=500
MinJobAge=3600
# What no site would set, so that a test need not wait: a job over its time is ended within seconds.
KillWait=2
SlurmctldTimeout=60
SlurmdTimeout=30
InactiveLimit=0
Waittime=0
OverTimeLimit=0
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={slurmdbd_port}
# Where munge's socket is, for the way to slurmdbd: AuthInfo does not count there.
AccountingStoragePass={folder}/munge.socket
AccountingStorageTRES=gres/gpu
JobCompType=jobcomp/none
JobAcctGatherType=jobacct_gather/cgroup
JobAcctGatherFrequency=2
NodeName=DEFAULT CPUs={cpus} RealMemory={mb} Gres=gpu:4 State=UNKNOWN
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={n1_port}
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={n2_port}
PartitionName=cpu Nodes=n1,n2 Default=YES MaxTime=01:00:00 State=UP
PartitionName=gpu Nodes=n2 MaxTime=01:00:00 State=UP
PartitionName=first Nodes=n1 MaxTime=01:00:00 State=UP
PartitionName=gpus Nodes=n1,n2 MaxTime=01:00:00 State=UP
"""
# Any device file will do: what counts is that Slurm hands them out.
FAKE_GPUS = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random")
GRES_CONF = "".join(f"NodeName=n[1-2] Name=gpu File={file}\n" for file in FAKE_GPUS)
CGROUP_CONF = """\
CgroupPlugin=cgroup/v1
CgroupAutomount=no
ConstrainCores=no
ConstrainRAMSpace=yes
ConstrainSwapSpace=no
ConstrainDevices=no
AllowedRAMSpace=100
"""
SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdPort={slurmdbd_port}
SlurmUser=root
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={mariadb_port}
StorageUser=slurm
StoragePass=test
StorageLoc=slurm_acct_db
"""


SYSTEM_CONF = Path("/etc/slurm/slurm.conf")


def why_not() -> str | None:
    """Why no cluster can be started here; None where one can."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if missing:
        return (
            f"Slurm's programs are not installed ({', '.join(missing)}); Debian: apt-get install slurmctld slurmd "
            "slurm-client slurmdbd munge mariadb-server"
        )
    if os.geteuid() != 0:
        return "slurmd limits the memory of jobs by cgroups, for which it must be started by root"
    if SYSTEM_CONF.exists() and not left_over():
        return f"{SYSTEM_CONF} exists: this machine belongs to a cluster, and the tests start one of their own"
    return None


def left_over() -> bool:
    """Whether the system's configuration is that of a test that was killed, with its daemons."""
    settings = dict(line.partition("=")[::2] for line in SYSTEM_CONF.read_text().splitlines())
    if not SYSTEM_CONF.is_symlink() or settings["ClusterName"] != NAME:
        return False
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(settings["SlurmctldPort"]))) != 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition: Callable[[], object], what: str, seconds: float = 60, every: float = 0.1) -> None:
    """Return once `condition()` holds; TimeoutError that names `what` when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(every)


@dataclass
class Cluster:
    """Start with `start`; every daemon is stopped by its PID in `stop`."""

    folder: Path
    daemons: dict[str, subprocess.Popen] = field(default_factory=dict)

    def __post_init__(self):
        ports = {f"{name}_port": free_port() for name in ("slurmctld", "slurmdbd", "mariadb", *NODES)}
        self.ports = ports
        values = {"name": NAME, "folder": self.folder, "cpus": NODE_CPUS, "mb": NODE_MB, **ports}
        for name, text in {
            "slurm.conf": SLURM_CONF,
            "gres.conf": GRES_CONF,
            "cgroup.conf": CGROUP_CONF,
            "slurmdbd.conf": SLURMDBD_CONF,
        }.items():
            (self.folder / name).write_text(text.format(**values))
        (self.folder / "slurmdbd.conf").chmod(0o600)
        for name in ("state", "database", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir()
        SYSTEM_CONF.parent.mkdir(exist_ok=True)
        SYSTEM_CONF.unlink(missing_ok=True)  # left over
        SYSTEM_CONF.symlink_to(self.folder / "slurm.conf")

    @property
    def environment(self) -> dict[str, str]:
        """What Slurm's programs need to find this cluster."""
        return {**os.environ, "PATH": PATH}

    def command(self, *arguments: object, check: bool = True) -> str:
        """What one of Slurm's programs prints."""
        done = subprocess.run(
            [str(argument) for argument in arguments],
            env=self.environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(map(str, arguments))}: {done.stderr or done.stdout}")
        return done.stdout

    def start(self) -> None:
        self.run("munged", "--foreground", "--force", f"--key-file={self.munge_key()}",
                 f"--socket={self.folder}/munge.socket", f"--log-file={self.folder}/munge.log",
                 f"--pid-file={self.folder}/munge.pid", f"--seed-file={self.folder}/munge.seed")  # fmt: skip
        self.start_database()
        self.run("slurmdbd", "-D")
        wait_for(lambda: self.listens("slurmdbd"), "slurmdbd listens")
        self.command("sacctmgr", "-i", "add", "cluster", NAME, check=False)
        self.run("slurmctld", "-D", "-i")
        for node in NODES:
            self.run("slurmd", "-D", "-N", node, name=node)
        wait_for(
            lambda: set(self.command("sinfo", "-h", "-N", "-t", "idle", "-o", "%N", check=False).split()) == set(NODES),
            "both nodes are idle",
        )

    def munge_key(self) -> Path:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        return key

    def start_database(self) -> None:
        data = self.folder / "database"
        self.command("mariadb-install-db", "--no-defaults", f"--datadir={data}", "--skip-test-db", "--user=root",
                     "--auth-root-authentication-method=normal")  # fmt: skip
        self.run("mariadbd", "--no-defaults", "--user=root", f"--datadir={data}",
                 f"--socket={self.folder}/mariadb.socket", "--bind-address=127.0.0.1",
                 f"--port={self.ports['mariadb_port']}", "--skip-log-bin",
                 "--innodb-buffer-pool-size=64M", "--innodb-lock-wait-timeout=900",
                 "--innodb-flush-log-at-trx-commit=0", f"--pid-file={self.folder}/mariadb.pid")  # fmt: skip
        client = ["mariadb", "--no-defaults", f"--socket={self.folder}/mariadb.socket", "-u", "root"]
        wait_for(
            lambda: subprocess.run([*client, "-e", "select 1"], capture_output=True).returncode == 0, "MariaDB answers"
        )
        subprocess.run(
            [*client, "-e", "create database slurm_acct_db; create user slurm@'127.0.0.1' identified by 'test';"
             "create user slurm@localhost identified by 'test'; grant all on slurm_acct_db.* to slurm@'127.0.0.1';"
             "grant all on slurm_acct_db.* to slurm@localhost;"],
            check=True, capture_output=True,
        )  # fmt: skip

    def listens(self, name: str) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.ports[f"{name}_port"])) == 0

    def run(self, *command: str, name: str | None = None) -> None:
        """Start a daemon in the foreground of a process of ours, so that its PID is known."""
        name = name or command[0]
        environment = self.environment | {"SLURM_CONF": str(self.folder / "slurm.conf")}
        with open(self.folder / f"{name}.out", "ab") as output:
            self.daemons[name] = subprocess.Popen(
                command, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL
            )

    def stop_daemon(self, name: str, how: int = signal.SIGTERM) -> None:
        daemon = self.daemons.pop(name)
        daemon.send_signal(how)
        daemon.wait(60)

    def stop(self) -> None:
        """Cancel what still runs, and stop each daemon by its PID, in the reverse order of their start."""
        try:
            if {"slurmctld", *NODES} <= self.daemons.keys():
                self.command("scancel", "--user", "root")
                wait_for(lambda: not self.jobs(), "the last jobs have ended", 30)
        finally:
            for name in reversed(list(self.daemons)):
                self.stop_daemon(name)
            SYSTEM_CONF.unlink()

    def jobs(self) -> dict[str, str]:
        """State by number of what is in the queue."""
        return dict(line.split("|") for line in self.command("squeue", "-h", "-o", "%i|%T").splitlines())

    def states(self, *options: str) -> dict[str, str]:
        """The final or present state of each job that accounting knows."""
        lines = self.command("sacct", "-X", "-n", "-P", "-S", "now-1day", "-o", "JobIDRaw,State", *options).splitlines()
        return dict(line.split("|") for line in lines)

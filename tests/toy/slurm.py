"""A private SLURM of one node on loopback, for tests, with all its files in one folder."""

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
COMMANDS = ("sbatch", "srun", "squeue", "scancel", "scontrol")
# Inside a job the executor's plugin drops SLURM_CONF, so every command must find it here.
CONF = Path("/etc/slurm/slurm.conf")
CPUS, MEMORY = 16, 64_000  # what the node claims to have, whatever this machine has; MB


def missing() -> str | None:
    """Why no SLURM can be started here, None where one can."""
    absent = [name for name in (*DAEMONS, *COMMANDS) if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)} not installed (Debian: slurm-wlm, munge)"
    if os.geteuid() != 0:
        return "starting SLURM's daemons needs root"
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        return "Snakemake's plugin is not installed (pip install -e .[slurm])"
    if CONF.exists() and not _abandoned():
        return f"{CONF} exists: this machine has a SLURM of its own"
    return None


def _abandoned() -> bool:
    """Whether the configuration is a link that a killed test run left behind."""
    if not CONF.is_symlink():
        return False
    pid = _pid(CONF.resolve().parent / "slurmctld.pid")
    return pid is None or not Path(f"/proc/{pid}").exists()


def _pid(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


class Slurm:
    """The cluster; `start` returns when its node is idle."""

    def __init__(self, folder: Path):
        self.folder = folder

    def start(self) -> None:
        """Starts the daemons."""
        for name in ("state", "spool"):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o755)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        (self.folder / "slurm.conf").write_text(self._conf())
        CONF.unlink(missing_ok=True)
        CONF.parent.mkdir(exist_ok=True)
        CONF.symlink_to(self.folder / "slurm.conf")
        files = {"key-file": "munge.key", "socket": "munge.sock", "pid-file": "munged.pid",
                 "log-file": "munged.log", "seed-file": "munge.seed"}  # fmt: skip
        munge = [f"--{option}={self.folder / name}" for option, name in files.items()]
        for command in (["munged", "--force", *munge], ["slurmctld"], ["slurmd"]):
            subprocess.run(command, check=True, capture_output=True)
        self._wait_for(lambda: "idle" in self("sinfo", "-h", "-o", "%T"), "the node")

    def stop(self) -> None:
        """Cancels what runs and ends the daemons."""
        self("scancel", f"--user={os.environ.get('USER', 'root')}")
        with contextlib.suppress(AssertionError):
            self._wait_for(lambda: not self.jobs(), "jobs to end")
        for name in reversed(DAEMONS):
            pid = _pid(self.folder / f"{name}.pid")
            if pid is not None and Path(f"/proc/{pid}").exists():
                os.kill(pid, signal.SIGTERM)
                with contextlib.suppress(AssertionError):
                    self._wait_for(lambda: not Path(f"/proc/{pid}").exists(), name)  # noqa: B023
        CONF.unlink(missing_ok=True)

    def __call__(self, *command: str) -> str:
        """What a command of SLURM prints."""
        done = subprocess.run(command, text=True, capture_output=True, check=False)
        return done.stdout.strip()

    def jobs(self, state: str = "all") -> list[str]:
        """Ids of the jobs that have not ended, of one state if it is given."""
        chosen = [] if state == "all" else [f"--states={state}"]
        return self("squeue", "-h", "-o", "%i", *chosen).split()

    def _conf(self) -> str:
        host = socket.gethostname().partition(".")[0]
        with socket.socket() as one, socket.socket() as other:
            for found in (one, other):
                found.bind(("127.0.0.1", 0))
            ports = one.getsockname()[1], other.getsockname()[1]
        at = self.folder
        return f"""\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={at}/munge.sock
StateSaveLocation={at}/state
SlurmdSpoolDir={at}/spool
SlurmctldPidFile={at}/slurmctld.pid
SlurmdPidFile={at}/slurmd.pid
SlurmctldLogFile={at}/slurmctld.log
SlurmdLogFile={at}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
EnforcePartLimits=ANY
ReturnToService=2
MinJobAge=3600
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs={CPUS} RealMemory={MEMORY} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""

    def _wait_for(self, condition, what: str, seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            logs = [path.read_text()[-1000:] for path in self.folder.glob("slurm*.log")]
            assert time.monotonic() < end, f"waited for {what} in vain\n" + "\n".join(logs)
            time.sleep(0.1)

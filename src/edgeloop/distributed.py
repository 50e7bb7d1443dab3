"""One training in several processes, on one node or several: PyTorch's distributed data parallel.

`train` starts the processes with torchrun, or with srun for several nodes, and comes back with the record that
`training.train` gives in one process. The processes (this module as a program) draw the same batches, and each
reads and computes its part of every batch. The mean of their gradients is that of the whole batch, and so are
the statistics of batch normalisation: but for rounding, and for what random layers draw, the figures are those
of one process.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from edgeloop import training
from edgeloop.compute import Alone, pick_device
from edgeloop.data.cache import open_split
from edgeloop.descent import end_with_parent
from edgeloop.progress import progress
from edgeloop.records import Genotype, candidate_id, read_json, write_json

OUTCOME = "outcome.json"
"""In the job's folder: {"record": ...} or {"error": ..., "traceback": ...}, of the first process that had one."""
KEPT = ("SLURM_JOB_ID", "SLURM_JOBID", "SLURM_CLUSTER_NAME", "SLURM_CONF", "SLURM_SUBMIT_DIR", "SLURM_SUBMIT_HOST")
"""What srun has to know of the allocation. The rest describes the step that asks, and srun would take it for
options; snakemake-executor-plugin-slurm-jobstep drops it, too.
"""
LOST = ("connection closed", "connection reset", "broken pipe")
"""Words of PyTorch for another process that has gone."""


def train(
    genotype: Genotype,
    folder: str | Path,
    settings: training.Settings,
    *,
    processes: int,
    nodes: int = 1,
    leg: training.Leg | None = None,
    weights_path: str | Path | None,
) -> dict[str, Any]:
    """Train the candidate `genotype` in `processes` processes and return its train record, as `training.train` does.

    folder: the crop cache. nodes: as many equal shares of the processes; more than one needs a Slurm allocation
    of these nodes, on the first of which this runs, and paths that all of them see. On CUDA each
    process takes a device of its own. One that fails ends the others; what it said is the exception's message.
    """
    if processes < 1 or nodes < 1 or processes % nodes:
        raise ValueError(
            f"cannot share {processes} processes among {nodes} nodes: expected at least one of both, and a number of "
            "processes that the number of nodes divides"
        )
    training.Recipe.from_genes(genotype["training"])
    leg = leg or training.Leg()
    made = Path(weights_path or leg.checkpoint).absolute()
    paths = {"start": leg.start, "checkpoint": leg.checkpoint, "weights": weights_path}
    paths = {name: path and str(Path(path).absolute()) for name, path in paths.items()}
    what = f"training of {candidate_id(genotype)} in {processes} processes"
    made.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{made.name}.", dir=made.parent) as place:
        job, outcome = Path(place) / "job.json", Path(place) / OUTCOME
        data = str(Path(folder).absolute())
        about = {"genotype": genotype, "folder": data, "settings": asdict(settings), "until": leg.until}
        write_json(job, about | paths)
        command = [*_launcher(processes, nodes, settings.threads), "-m", "edgeloop.distributed", str(job)]
        status = _run(command, settings.threads)
        said = read_json(outcome) if outcome.exists() else None
    if said is None:
        raise RuntimeError(
            f"{what} ended without a record, {Path(command[0]).name} with exit status {status}: what was said last "
            "stands above; a process that was killed (signal 9) most often lacked memory"
        )
    if "record" in said:
        return said["record"]
    error = RuntimeError(f"{what} failed: {said['error']}")
    error.add_note(said["traceback"])
    raise error


def _launcher(processes: int, nodes: int, threads: int) -> list[str]:
    """The command that starts what follows it, `-m module argument`, in `processes` processes."""
    if nodes == 1:
        # Standalone: the processes meet at a free port, so trainings beside each other do not meet. By the loopback
        # address, because not every machine knows its own name.
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"]
        return [*torchrun, f"--nproc-per-node={processes}"]
    if "SLURM_JOB_ID" not in os.environ:
        raise RuntimeError(
            f"a training on {nodes} nodes runs in a Slurm allocation, and this is none (SLURM_JOB_ID is not set): "
            "submit it to Slurm, or train on one node"
        )
    return [
        "srun",
        f"--nodes={nodes}",
        f"--ntasks={processes}",
        f"--ntasks-per-node={processes // nodes}",
        f"--cpus-per-task={threads}",
        "--distribution=block",
        # The step that this runs in holds the cores, the memory and the GPUs, and keeps them.
        "--overlap",
        "--cpu-bind=none",
        "--kill-on-bad-exit=1",
        sys.executable,
    ]


def _run(command: list[str], threads: int) -> int:
    """The exit status of `command`, whose processes end with this one, however it ends."""
    environment = {key: value for key, value in os.environ.items() if key in KEPT or not key.startswith("SLURM_")}
    # Also in time for libraries that read it once, as they are loaded.
    environment["OMP_NUM_THREADS"] = str(threads)
    try:
        # torchrun and its processes would outlive a kill.
        process = subprocess.Popen(command, env=environment, preexec_fn=lambda: end_with_parent(signal.SIGTERM))
    except FileNotFoundError as error:
        raise RuntimeError(f"cannot start {command[0]}: it is not installed here, or not on the PATH") from error
    with process:
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            raise


# -------------------------------------------------------------------------------------------- in each process


class Team(Alone):
    """This process among those that share a training; see Alone.

    Parts are contiguous and differ by one row at most. A process whose part is empty computes with no rows:
    all must come to every exchange.
    """

    def __init__(self, rank: int, size: int, device: torch.device, abandon: Callable[[dict[str, Any]], None]):
        self.rank, self.size, self.device, self._abandon = rank, size, device, abandon

    def part(self, rows: int) -> slice:
        return slice(rows * self.rank // self.size, rows * (self.rank + 1) // self.size)

    def wrap(self, model: nn.Module) -> nn.Module:
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                # The same parameters, buffers and keys of the state dict: only what it computes in training differs.
                module.__class__ = GlobalBatchNorm
        # All compute the same running statistics, so there is nothing to broadcast.
        # Depthwise weights have two layouts in one, of which PyTorch expects the other: nothing is wrong with that.
        warnings.filterwarnings("ignore", message="Grad strides do not match", category=UserWarning)
        network = DistributedDataParallel(model, forward_sync_buffers=False)
        network.layout = getattr(model, "layout", torch.contiguous_format)
        return network

    def loss(self, outputs: Tensor, targets: Tensor, rows: int) -> Tensor:
        # A mean of the part would weigh the rows of unequal parts unequally, and be NaN of an empty one.
        return functional.mse_loss(outputs, targets, reduction="sum") * (self.size / (rows * targets.shape[1]))

    def mean(self, value: Tensor) -> Tensor:
        value = value.clone()
        distributed.all_reduce(value)
        return value / self.size

    def gather(self, own: np.ndarray, rows: int) -> np.ndarray:
        result = torch.zeros((rows, *own.shape[1:]), device=self.device)
        result[self.part(rows)] = torch.from_numpy(own).to(self.device)
        # Each row is of one process, and zero in the others: the sum is exact.
        distributed.all_reduce(result)
        return result.cpu().numpy()

    def abandon(self, record: dict[str, Any]) -> None:
        self._abandon(record)


class GlobalBatchNorm(_BatchNorm):
    """Batch normalisation by the statistics of the whole batch, of which each process has a part.

    torch.nn.SyncBatchNorm does the same on CUDA and nothing on a CPU; this does it on both, with sums in double
    precision as PyTorch's own on a CPU.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Any [N, C, ...]."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        result, mean, variance, count = _Normalise.apply(x, self.weight, self.bias, self.eps)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_((variance * (count / (count - 1))).float(), self.momentum)
        return result


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias with mean and variance over all rows of all processes.

    Ioffe and Szegedy, 1502.03167; the gradient with respect to x as in their section 3, its two sums over all
    processes. The gradients of weight and bias are those of the own rows: DistributedDataParallel adds them up.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        dims, channels = [0, *range(2, x.dim())], x.shape[1]
        wide = x.double()
        rows = wide.new_full((1,), x.numel() // channels)
        sums = torch.cat([wide.sum(dims), wide.square_().sum(dims), rows])
        distributed.all_reduce(sums)
        count = sums[-1]
        mean, squares = (sums[:-1] / count).split(channels)
        variance = (squares - mean.square()).clamp_min(0)
        inverse = (variance + eps).rsqrt().float()
        mean = mean.float()
        ctx.save_for_backward(x, weight, mean, inverse, count)
        ctx.mark_non_differentiable(mean, variance, count)
        return functional.batch_norm(x, mean, variance.float(), weight, bias, eps=eps), mean, variance, count

    @staticmethod
    def backward(ctx, gradient: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, inverse, count = ctx.saved_tensors
        dims, shape = [0, *range(2, x.dim())], [1, -1] + [1] * (x.dim() - 2)
        centred, gradient = x - mean.view(shape), gradient.float()
        own = torch.stack([gradient.sum(dims, dtype=torch.double), (gradient * centred).sum(dims, dtype=torch.double)])
        every = own.clone()
        distributed.all_reduce(every)
        level, slope = every / count
        scale = inverse * weight
        slope, level = (scale * inverse.square() * slope).float(), (scale * level).float()
        # In place: these maps are the largest of the training.
        along = centred.mul_(-slope.view(shape)).sub_(level.view(shape)).addcmul_(gradient, scale.view(shape))
        return along.to(x.dtype), (own[1] * inverse).to(weight.dtype), own[0].to(weight.dtype), None


def main(job_file: str | Path) -> None:
    """What each process runs: its part of the training that `job_file` describes."""
    end_with_parent()
    os.environ.update(whereabouts(os.environ))
    rank, size, local = (int(os.environ[key]) for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    outcome = Path(job_file).with_name(OUTCOME)

    def say(what: dict[str, Any]) -> None:
        """Write the outcome unless there is one: the first process to fail says why, the others only that it has."""
        own = outcome.with_name(f"{rank}.json")
        write_json(own, what)
        with suppress(FileExistsError):
            os.link(own, outcome)

    def leave() -> None:
        """End at once: the interpreter's own end could wait for an exchange that never comes."""
        sys.stderr.flush()
        os._exit(1)

    def abandon(record: dict[str, Any]) -> None:
        say({"record": record})
        leave()

    try:
        record = _train(read_json(job_file), rank, size, local, abandon)
        if rank == 0:
            say({"record": record})
        distributed.barrier()
        distributed.destroy_process_group()
    except Exception as error:
        said = f"rank {rank} on {socket.gethostname()}: {type(error).__name__}: {error}"
        if isinstance(error, RuntimeError) and any(words in str(error).lower() for words in LOST):
            said += "\nAnother process has gone without a word: one that was killed most often lacked memory."
        say({"error": said, "traceback": traceback.format_exc()})
        leave()


def _train(
    job: dict[str, Any], rank: int, size: int, local: int, abandon: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    settings = training.Settings(**job["settings"])
    device = pick_device(settings.device)
    if device.type == "cuda":
        device = torch.device("cuda", cuda_index(local, torch.cuda.device_count()))
        torch.cuda.set_device(device)
        distributed.init_process_group("nccl", device_id=device)
    else:
        distributed.init_process_group("gloo")
    return training.train(
        job["genotype"],
        open_split(job["folder"], "train"),
        open_split(job["folder"], "validation"),
        settings,
        leg=training.Leg(job["start"], job["until"], job["checkpoint"] if rank == 0 else None),
        weights_path=job["weights"] if rank == 0 else None,
        progress=progress if rank == 0 else None,
        team=Team(rank, size, device, abandon),
    )


def cuda_index(local: int, devices: int) -> int:
    """The CUDA device of the process `local` of its node, of the `devices` that it sees."""
    if local < devices:
        return local
    # With --gpus-per-task, Slurm shows each process its own device alone.
    if devices == 1 and "SLURM_LOCALID" in os.environ:
        return 0
    raise RuntimeError(
        f"process {local} of its node has no CUDA device: the node shows {devices}, expected one for each process; "
        "ask for more GPUs, train in fewer processes, or set training.device to cpu"
    )


def whereabouts(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables by which PyTorch's processes find each other, of torchrun or made of srun's."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    if all(name in environment for name in names):
        return {name: environment[name] for name in names}
    slurm = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_LAUNCH_NODE_IPADDR", "SLURM_JOB_ID")
    if missing := [name for name in (*slurm, "SLURM_STEP_ID") if name not in environment]:
        raise RuntimeError(
            f"this process is neither torchrun's ({names[0]} is not set) nor srun's ({missing[0]} is not set): "
            "edgeloop.distributed.train starts such processes"
        )
    job, step = int(environment["SLURM_JOB_ID"]), int(environment["SLURM_STEP_ID"])
    # All of a step know it, steps beside each other differ, and it is below the ports that Linux hands out.
    port = 15_000 + (101 * job + step) % 15_000
    return dict(zip(names, [*(environment[name] for name in slurm[:4]), str(port)], strict=True))


if __name__ == "__main__":
    main(sys.argv[1])

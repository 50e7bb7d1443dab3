"""When a job dies without a word: tried again with more, and in the end a record of what happened.

A job that runs out of memory or time is killed; no script of it can write a record. Snakemake starts it again, with
more of both. The last attempt does not try once more what has failed twice, but writes the failed record, so that the
search goes on. Jobs that were cancelled or whose node broke down count for nothing: that is no candidate's fault.
"""

import os

from edgeloop import slurm

ATTEMPTS = "EDGELOOP_ATTEMPTS"
"""How many attempts a job has; Snakemake's main process sets it, jobs inherit it."""
ENOUGH = 2


def given_up(attempt: int) -> str | None:
    """Why this attempt (the first is 1) should not try again; None when it should.

    Raises slurm.SlurmError when Slurm cannot say how the earlier attempts ended.
    """
    if attempt <= ENOUGH or attempt < int(os.environ.get(ATTEMPTS, 0)):
        return None
    died = [job for job in slurm.earlier_attempts() if job.state in slurm.OWN_FAULT]
    if len(died) < ENOUGH:
        return None
    ends = "; ".join(f"job {job.number} ({job.limits}) {slurm.OWN_FAULT[job.state]}" for job in died)
    return f"died in {len(died)} attempts: {ends}"

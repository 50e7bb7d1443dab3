"""The real device in the loop: models go to it, latencies come back. See docs/edge-devices.md."""

from .device import Device
from .errors import (
    AuthenticationFailed,
    DeviceBusy,
    DeviceLost,
    DeviceUnreachable,
    EdgeError,
    EnrolmentMismatch,
    HostKeyRejected,
    RunnerFailed,
    RuntimeMissing,
    StorageFailed,
)
from .repetition import remarks
from .session import Job, Session, Timing, connect

__all__ = [
    "AuthenticationFailed",
    "Device",
    "DeviceBusy",
    "DeviceLost",
    "DeviceUnreachable",
    "EdgeError",
    "EnrolmentMismatch",
    "HostKeyRejected",
    "Job",
    "RunnerFailed",
    "RuntimeMissing",
    "Session",
    "StorageFailed",
    "Timing",
    "connect",
    "remarks",
]

"""The real device in the loop: models go to it, latencies come back. See docs/edge-devices.md."""

from .device import Device
from .enrolment import enrol
from .errors import (
    AuthenticationFailed,
    DeviceBusy,
    DeviceLost,
    DeviceNotReady,
    DeviceUnreachable,
    EdgeError,
    EnrolmentMismatch,
    HostKeyRejected,
    InstallFailed,
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
    "DeviceNotReady",
    "DeviceUnreachable",
    "EdgeError",
    "EnrolmentMismatch",
    "HostKeyRejected",
    "InstallFailed",
    "Job",
    "RunnerFailed",
    "RuntimeMissing",
    "Session",
    "StorageFailed",
    "Timing",
    "connect",
    "enrol",
    "remarks",
]

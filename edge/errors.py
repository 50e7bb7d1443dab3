"""What can go wrong between here and a device. A model that fails is no error but a record with `status: failed`."""


class EdgeError(Exception):
    """The infrastructure failed: the message names the device, the cause and the next step."""


class DeviceUnreachable(EdgeError):
    """No connection: refused, timed out, unknown name, or no SSH server behind the port."""


class HostKeyRejected(EdgeError):
    """The device or a gateway has no known host key, or another one than the known."""


class KnownHostsMissing(HostKeyRejected):
    """There is no file of known host keys: nothing was asked of the device."""


class AuthenticationFailed(EdgeError):
    """The device or a gateway does not accept the user with this key."""


class DeviceBusy(EdgeError):
    """Somebody else holds the device's lock for longer than `lock_timeout_s`."""


class DeviceLost(EdgeError):
    """The session ended or fell silent before its work was done."""


class RuntimeMissing(EdgeError):
    """The device lacks Python, numpy, onnxruntime, a provider or a CPU that the configuration asks for."""


class StorageFailed(EdgeError):
    """The device's work folder cannot be written."""


class EnrolmentMismatch(EdgeError):
    """The device is not the one that was enrolled, or its software has changed since."""


class DeviceNotReady(EdgeError):
    """The device lacks something: all that its enrolment has found missing, and how to mend it."""


class InstallFailed(EdgeError):
    """The private environment could not be made on the device."""


class RunnerFailed(EdgeError):
    """The runner ended in a way that it should not: a defect of ours, with what it said."""

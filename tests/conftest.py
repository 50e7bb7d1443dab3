"""What all tests share: infra tests may be skipped on a laptop, never where EDGELOOP_NO_SKIPS is set (CI)."""

import os

import pytest


def pytest_collection_modifyitems(items):
    """Real runs take longest: one worker begins with those on a cluster, one with those on this machine."""
    long = ("slurm", "workflow")
    items.sort(key=lambda item: not any(item.get_closest_marker(kind) for kind in long))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.skipped and os.environ.get("EDGELOOP_NO_SKIPS") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped where nothing may be: {report.longrepr}"
    return report

"""What all tests share: infra tests may be skipped on a laptop, never where EDGELOOP_NO_SKIPS is set (CI)."""

import os

import pytest


def pytest_collection_modifyitems(items):
    """Real runs of the workflow take longest: one worker begins with them, and they share one finished run."""
    for item in items:
        if item.get_closest_marker("workflow"):
            item.add_marker(pytest.mark.xdist_group("workflow"))
    items.sort(key=lambda item: item.get_closest_marker("workflow") is None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.skipped and os.environ.get("EDGELOOP_NO_SKIPS") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped where nothing may be: {report.longrepr}"
    return report

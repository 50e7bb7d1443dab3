"""A stage is run again when the code that it rests on has changed."""

import sys

import pytest

from edgeloop.fingerprint import code


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "fingerprinted"
    (folder / "inner").mkdir(parents=True)
    for file in ("__init__.py", "module.py", "inner/__init__.py", "inner/deep.py"):
        (folder / file).write_text(f"# {file}\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    # Looking for a module imports the packages around it.
    for name in [name for name in sys.modules if name.partition(".")[0] == "fingerprinted"]:
        del sys.modules[name]


def test_the_same_code_has_the_same_fingerprint(package):
    assert code("fingerprinted.module") == code("fingerprinted.module")
    assert len(code("fingerprinted.module")) == 12


def test_an_edit_changes_the_fingerprint_of_its_module_alone(package):
    before = [code(f"fingerprinted.{name}") for name in ("module", "inner")]
    (package / "module.py").write_text("# edited\n")
    after = [code(f"fingerprinted.{name}") for name in ("module", "inner")]
    assert after[0] != before[0] and after[1] == before[1]


@pytest.mark.parametrize("file", ["__init__.py", "module.py", "inner/deep.py"])
def test_an_edit_anywhere_in_a_package_changes_its_fingerprint(package, file):
    before = code("fingerprinted")
    (package / file).write_text("# edited\n")
    assert code("fingerprinted") != before


def test_several_modules_count_together(package):
    assert code("fingerprinted.module", "fingerprinted.inner.deep") != code("fingerprinted.module")


def test_a_module_that_is_not_there_is_named(package):
    with pytest.raises(ValueError, match=r"no module 'fingerprinted\.gone'"):
        code("fingerprinted.gone")

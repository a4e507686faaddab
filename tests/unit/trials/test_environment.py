"""What a result was made with is recorded truthfully, with git and without it."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from stnbench.core import identity as code
from stnbench.core.identity import CodeVersion, code_version
from stnbench.spec.trial import ComputeOptions
from stnbench.training.device import DeviceSpec
from stnbench.trials import run
from stnbench.trials.run import describe_environment


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    """Nothing is kept from one test to the next."""
    code_version.cache_clear()
    yield
    code_version.cache_clear()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A package in a git checkout with one commit."""
    package = tmp_path / "src" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True, timeout=30)
    return package


@pytest.mark.slow
def test_a_clean_checkout_gives_its_commit(checkout: Path) -> None:
    """Forty hexadecimal digits, and not dirty."""
    version = code_version(checkout)
    assert len(version.commit) == 40
    assert not version.dirty


@pytest.mark.slow
def test_a_changed_or_new_module_makes_it_dirty(checkout: Path) -> None:
    """Both may change results; a file outside the package cannot."""
    (checkout.parent.parent / "notes.txt").write_text("outside")
    assert not code_version(checkout).dirty
    code_version.cache_clear()
    (checkout / "new.py").write_text("")
    assert code_version(checkout).dirty


@pytest.mark.slow
def test_a_package_that_git_does_not_track_has_no_commit(checkout: Path) -> None:
    """A virtual environment inside some other checkout is not of that commit."""
    installed = checkout.parent.parent / ".venv" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert code_version(installed).commit.startswith("wheel ")


@pytest.mark.slow
def test_a_checkout_of_another_owner_gives_its_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a shared disk or in a container; git refuses it by itself. Changes are seen as well."""
    expected = code_version(checkout)
    code_version.cache_clear()
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert code_version(checkout) == expected
    code_version.cache_clear()
    (checkout / "new.py").write_text("")
    assert code_version(checkout) == CodeVersion(commit=expected.commit, dirty=True)


@pytest.mark.parametrize("why", ["no git", "refused", "hangs"])
def test_a_checkout_that_nobody_could_look_at_is_unknown_and_dirty(
    why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release that did not run is never named, and "not dirty" never said of what was not seen."""

    def answer(command: list[str], **settings: object) -> None:
        match why:
            case "no git":
                raise FileNotFoundError("git")
            case "refused":
                raise subprocess.CalledProcessError(128, command)
            case _:
                raise subprocess.TimeoutExpired(command, 10)

    monkeypatch.setattr(subprocess, "run", answer)
    (tmp_path / ".git").mkdir()
    version = code_version(tmp_path / "src" / "package")
    assert (version.commit, version.dirty) == ("unknown", True)
    assert str(tmp_path) in version.problem
    installed = code_version(tmp_path / ".venv" / "lib" / "site-packages" / "package")
    assert installed.commit.startswith("wheel ")


def test_without_git_the_version_stands_for_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No git on the machine is no error."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code_version(tmp_path) == CodeVersion(commit="wheel 0.1.0", dirty=False)


def test_a_git_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network drive must not hold up a trial."""

    def hang(command: list[str], **settings: object) -> None:
        raise subprocess.TimeoutExpired(command, 10)

    monkeypatch.setattr(subprocess, "run", hang)
    assert code_version(tmp_path).commit.startswith("wheel ")


def test_the_code_is_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker runs what it read at its start, whatever the checkout is by now."""
    calls: list[Path] = []
    monkeypatch.setattr(code, "run_git", lambda folder, *arguments: calls.append(folder))
    assert code_version(tmp_path) == code_version(tmp_path)
    assert len(calls) == 1


def test_the_environment_names_machine_libraries_and_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a reader needs to repeat a result."""
    monkeypatch.setattr(run, "code_version", lambda package: CodeVersion(commit="c0ffee", dirty=True))
    found = describe_environment(DeviceSpec.parse("cpu", threads=3), dataset_digest="train a")
    assert (found.commit, found.dirty, found.threads, found.dataset_digest) == ("c0ffee", True, 3, "train a")
    versions = dict(found.versions)
    assert versions["torch"] == torch.__version__.split("+")[0] or versions["torch"] == torch.__version__
    assert versions.keys() == {"numpy", "stnbench", "torch", "torchvision"}
    assert all((found.python, found.platform, found.host, found.device))


def test_the_options_of_the_machine_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a trial was computed with stands beside its result; nothing where there was no option."""
    monkeypatch.setattr(run, "code_version", lambda package: CodeVersion(commit="c0ffee", dirty=False))
    where, options = DeviceSpec.parse("cpu", threads=1), ComputeOptions(compile=True, channels_last=True)
    assert describe_environment(where, dataset_digest="train a", compute=options).compute == "channels_last,compile"
    assert describe_environment(where, dataset_digest="train a").compute == ""


def test_a_gpu_s_driver_and_rounding_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The card, its driver, the libraries on it, what its products are rounded to, and that runs repeat."""
    monkeypatch.setattr(run, "code_version", lambda package: CodeVersion(commit="c0ffee", dirty=False))
    monkeypatch.setattr(run, "gpu_driver", lambda: "580.65.06")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"NVIDIA H100 {index}")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 92400)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    found = describe_environment(DeviceSpec.parse("cuda:1", threads=1), dataset_digest="train a", precision="tf32")
    assert (found.device, found.driver, found.numerics) == (
        "NVIDIA H100 1",
        "580.65.06",
        "tf32 convolutions, deterministic",
    )
    assert dict(found.versions)["cudnn"] == "92400"
    assert dict(found.versions).keys() >= {"cuda", "cudnn"}
    there = describe_environment(DeviceSpec.parse("cpu", threads=1), dataset_digest="train a", precision="float32")
    assert (there.driver, there.numerics) == ("", "float32, deterministic")

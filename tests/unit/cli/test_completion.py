"""``stnbench completion``."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stnbench.cli import completion
from stnbench.cli.main import COMMANDS
from stnbench.core.errors import UnknownNameError

pytestmark = pytest.mark.slow  # every command is imported


@pytest.fixture(scope="module")
def bash_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script of bash, in a file."""
    with pytest.MonkeyPatch.context() as patch:
        printed: list[str] = []
        patch.setattr("builtins.print", lambda text, **_: printed.append(text))
        assert completion.main(["bash"]) == 0
    path = tmp_path_factory.mktemp("completion") / "stnbench"
    path.write_text(printed[0])
    return path


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("stnbench ", {*COMMANDS}),
        ("stnbench swe", {"sweep"}),
        ("stnbench train --eng", {"--engine"}),
        ("stnbench train --engine ", {"inline", "local"}),
        ("stnbench new ", {"transformer", "network", "dataset", "sweep"}),
        ("stnbench sweep loc", {"locnet_sizes"}),
        pytest.param("stnbench report ranking", {"ranking_2015"}, marks=pytest.mark.thorough),
        pytest.param("stnbench status of_this", {"of_this_folder"}, marks=pytest.mark.thorough),
        ("stnbench store export of_this", {"of_this_folder"}),
        ("stnbench store m", {"merge", "metrics"}),
        ("stnbench completion ", {*completion.SHELLS}),
    ],
)
def test_bash_completes_commands_options_and_choices(
    typed: str, offered: set[str], bash_script: Path, tmp_path: Path
) -> None:
    """As one types them, with the sweeps of the folder one works in; each is offered, whatever else is."""
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "of_this_folder.yaml").write_text("question: ?\n")
    (tmp_path / "stnbench").write_text(f'#!/bin/sh\nexec {sys.executable} -m stnbench "$@"\n')
    (tmp_path / "stnbench").chmod(0o755)
    words = typed.split(" ")
    ask = (
        f"source {bash_script}; COMP_WORDS=({' '.join(words[:-1])} '{words[-1]}'); COMP_CWORD={len(words) - 1}; "
        "$(complete -p stnbench | sed 's/.*-F \\([^ ]*\\).*/\\1/') stnbench; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    shell = {
        **os.environ,
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "STNBENCH_RUNS": str(tmp_path / "runs"),
    }
    done = subprocess.run(
        ["bash", "-c", ask], capture_output=True, text=True, check=True, timeout=60, cwd=tmp_path, env=shell
    )

    assert offered <= set(done.stdout.split()), done.stdout


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_every_command_is_in_the_script_of_each_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With an option of one, which shows that parsers were read."""
    assert completion.main([shell]) == 0
    script = capsys.readouterr().out

    assert [name for name in COMMANDS if name not in script] == []
    assert "retry-failed" in script


def test_an_unknown_shell_is_refused() -> None:
    """The message names those there are."""
    with pytest.raises(UnknownNameError, match="fsh"):
        completion.main(["fsh"])

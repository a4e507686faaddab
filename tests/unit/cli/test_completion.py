"""``stnbench completion``."""

import subprocess
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
        patch.setattr("builtins.print", printed.append)
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
        ("stnbench new ", {"transformer", "sweep"}),
        ("stnbench store m", {"merge", "metrics"}),
        ("stnbench completion ", {*completion.SHELLS}),
    ],
)
def test_bash_completes_commands_options_and_choices(typed: str, offered: set[str], bash_script: Path) -> None:
    """As one types them; each is offered, whatever else is."""
    words = typed.split(" ")
    ask = (
        f"source {bash_script}; COMP_WORDS=({' '.join(words[:-1])} '{words[-1]}'); COMP_CWORD={len(words) - 1}; "
        "$(complete -p stnbench | sed 's/.*-F \\([^ ]*\\).*/\\1/') stnbench; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True, timeout=30)

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

"""A stand-in for ``nvidia-smi``: a script that prints what a made-up machine's driver would, or hangs."""

import stat
from collections.abc import Sequence
from pathlib import Path

UUIDS = (
    "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6",
    "GPU-8932aaaa-d72c-4106-c12f-20bd9faed9f6",
    "GPU-11111111-2222-3333-4444-555555555555",
)


def install_driver(
    folder: Path,
    *,
    memory: Sequence[str] = (),
    listing: str = "",
    version: str = "580.65.06",
    hangs: bool = False,
    code: int = 0,
) -> Path:
    """Write the script into ``folder/bin``, to be put first on the PATH.

    Args:
        folder: any.
        memory: what the driver says of the memory of each GPU, in MiB.
        listing: what ``nvidia-smi -L`` prints.
        version: of the driver.
        hangs: whether it never answers.
        code: its exit code.
    """
    tables = {
        "index": "\n".join(str(index) for index in range(len(memory))),
        "index,uuid,memory.total": "\n".join(f"{i}, {UUIDS[i]}, {total}" for i, total in enumerate(memory)),
        "driver_version": "\n".join([version] * max(1, len(memory))),
    }
    cases = "".join(f"  --query-gpu={fields}) cat <<'END'\n{text}\nEND\n  ;;\n" for fields, text in tables.items())
    cases += f"  -L) cat <<'END'\n{listing}\nEND\n  ;;\n"
    script = f'#!/bin/sh\n{"exec sleep 60" if hangs else ""}\ncase "$1" in\n{cases}esac\nexit {code}\n'
    path = folder / "bin" / "nvidia-smi"
    path.parent.mkdir(exist_ok=True)
    path.write_text(script)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path.parent

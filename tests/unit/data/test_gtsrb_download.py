"""Downloads go on where they stopped, and only whole archives get their name."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stnbench.core.errors import DataCorruptError, DataMissingError, FolderError
from stnbench.data.gtsrb.archive import Archive
from stnbench.data.gtsrb.official import Connection, download_archives

CONTENT = np.random.default_rng(0).bytes(100_000)
ARCHIVE = Archive(name="a.zip", md5=hashlib.md5(CONTENT, usedforsecurity=False).hexdigest(), prefix="")


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT as the server's ``faults`` say, one a request: cut after so many bytes, or a status."""

    def do_GET(self) -> None:
        """Answer one request."""
        server: Any = self.server
        asked = self.headers.get("Range")
        server.asked.append(asked)
        fault = server.faults.pop(0) if server.faults else None
        if fault in {"404", "503"}:
            self.send_error(int(fault))
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.ranges else 0
        if start >= len(server.content):
            self.send_error(416)
            return
        body = server.content[start:]
        self.send_response(206 if asked and server.ranges else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if fault is None else body[: int(fault)])

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Any]:
    """A server on this machine, with ranges and without faults."""
    running: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.content, running.faults, running.asked, running.ranges = CONTENT, [], [], True
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


def fetch(server: Any, folder: Path) -> list[str]:
    """Download the one archive; what was said."""
    said: list[str] = []
    connection = Connection(
        base_url=f"http://127.0.0.1:{server.server_address[1]}/", timeout_s=10, attempts=3, sleep=lambda seconds: None
    )
    download_archives(folder, say=said.append, archives=[ARCHIVE], connection=connection)
    return said


def test_an_archive_is_fetched_once(server: Any, tmp_path: Path) -> None:
    """The second run asks for nothing and leaves no partial file."""
    assert "MD5 as expected" in fetch(server, tmp_path / "new")[-1]
    assert (tmp_path / "new" / "a.zip").read_bytes() == CONTENT
    assert "there already" in fetch(server, tmp_path / "new")[-1]
    assert server.asked == [None]
    assert not (tmp_path / "new" / "a.zip.part").exists()


def test_a_cut_connection_is_resumed(server: Any, tmp_path: Path) -> None:
    """Each connection asks for what is missing, and nothing twice."""
    server.faults = ["30000", "503", "20000"]
    said = fetch(server, tmp_path)
    assert server.asked == [None, "bytes=30000-", "bytes=30000-", "bytes=50000-"]
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert len([line for line in said if "connecting again" in line]) == 3


def test_the_next_run_resumes_too(server: Any, tmp_path: Path) -> None:
    """Giving up keeps what came, and says that it is kept."""
    server.faults = ["40000", "0", "0", "0"]
    with pytest.raises(DataMissingError, match=r"a\.zip cannot be fetched .*goes on where it stopped"):
        fetch(server, tmp_path)
    assert (tmp_path / "a.zip.part").stat().st_size == 40_000
    assert not (tmp_path / "a.zip").exists()
    fetch(server, tmp_path)
    assert server.asked[-1] == "bytes=40000-"
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_server_without_ranges_starts_anew(server: Any, tmp_path: Path) -> None:
    """What came before is thrown away rather than doubled."""
    server.ranges, server.faults = False, ["40000"]
    fetch(server, tmp_path)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_whole_partial_file_is_accepted(server: Any, tmp_path: Path) -> None:
    """A process killed just before renaming costs one request."""
    (tmp_path / "a.zip.part").write_bytes(CONTENT)
    fetch(server, tmp_path)
    assert server.asked == ["bytes=100000-"]
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_wrong_content_is_thrown_away(server: Any, tmp_path: Path) -> None:
    """Another MD5 is an error, and the next run starts anew."""
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(DataCorruptError, match=rf"has MD5 \w+ instead of {ARCHIVE.md5}"):
        fetch(server, tmp_path)
    assert not (tmp_path / "a.zip").exists()
    assert not (tmp_path / "a.zip.part").exists()
    server.content = CONTENT
    fetch(server, tmp_path)
    assert server.asked == [None, None]


def test_a_wrong_file_in_its_place_is_not_overwritten(server: Any, tmp_path: Path) -> None:
    """It may be the user's; the message says to delete it."""
    (tmp_path / "a.zip").write_bytes(b"mine")
    with pytest.raises(DataCorruptError, match=r"delete .*a\.zip"):
        fetch(server, tmp_path)
    assert (tmp_path / "a.zip").read_bytes() == b"mine"


def test_an_archive_that_is_not_there_ends_at_once(server: Any, tmp_path: Path) -> None:
    """A wrong address is not tried again."""
    server.faults = ["404", "404"]
    with pytest.raises(DataMissingError, match="answers 404"):
        fetch(server, tmp_path)
    assert len(server.asked) == 1


def test_a_server_that_is_not_there_is_one_line(server: Any, tmp_path: Path) -> None:
    """No traceback where there is no network."""
    connection = Connection(base_url="http://127.0.0.1:1/", attempts=2, sleep=lambda seconds: None)
    with pytest.raises(DataMissingError, match="cannot be fetched"):
        download_archives(tmp_path, say=lambda line: None, archives=[ARCHIVE], connection=connection)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """The folder's error comes before any request."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FolderError, match="for the archives"):
        download_archives(tmp_path / "file" / "in", say=lambda line: None)

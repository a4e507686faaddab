"""Text from outside (labels, messages, questions) made safe to print on one line."""

import re
import unicodedata

_MEANINGFUL = re.compile(r"[&<>\[\]*_`~|\\#!@$]|:(?=//)|(?<=www)\.", re.IGNORECASE)
_LINE_START = re.compile(r"^(\d*)([-+=.):])")
"""What makes a list, a rule or a heading of a line that begins with it."""


def printable(text: str) -> str:
    r"""Return the text on one line, with every character that could steer a terminal shown as an escape.

    Line breaks and tabs become single spaces. Control characters, direction marks, lone surrogates and other
    invisible characters (Unicode categories C) are written as Python writes them: ``\x1b``, ``\u202e``, ``\udc80``.
    """
    if not text.isprintable():  # nearly all texts are, and a page has a hundred thousand of them
        text = "".join(map(_shown, text))
    return " ".join(text.split())


def _shown(letter: str) -> str:
    if letter.isspace():
        return " "
    if unicodedata.category(letter)[0] != "C":
        return letter
    code = ord(letter)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def plain_markdown(text: str) -> str:
    """Return text from outside so that Markdown shows it as it is, on one line: no heading, link, picture or tag.

    Characters with a meaning become numeric entities, which every dialect of Markdown and HTML reads as text.
    """
    shown = _MEANINGFUL.sub(lambda found: f"&#{ord(found.group())};", printable(text))
    return _LINE_START.sub(lambda found: f"{found.group(1)}&#{ord(found.group(2))};", shown)


def counted(count: int, thing: str) -> str:
    """Return ``1 trial``, ``2 trials``."""
    return f"{count} {thing}{'' if count == 1 else 's'}"

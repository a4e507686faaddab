"""Passwords in addresses, which no message, report or stored name may show."""

import re

HIDDEN = "***"
_OF_USER = re.compile(
    rf"(://[^:/?#@\s]*):(?!{re.escape(HIDDEN)}@[^@\s]*(?:\s|$))(?:(?!\d{{1,5}}(?:[/?#]|$))[^\n]*|\S*)@"
)
"""The password goes up to the last ``@`` of the line, spaces included, but where a port stands in its place."""

_AS_PARAMETER = re.compile(rf"((?:ssl)?password)=(?!{re.escape(HIDDEN)})[^&\n]*", re.IGNORECASE)


def hide_passwords(text: str) -> str:
    """The text with every password of a URL in it (``//user:password@`` or ``?password=``) as ``***``.

    Of a password with an unquoted ``@`` nothing is left; rather too much is hidden than too little.
    """
    return _AS_PARAMETER.sub(rf"\1={HIDDEN}", _OF_USER.sub(rf"\1:{HIDDEN}@", text))

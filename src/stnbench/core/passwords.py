"""Passwords in addresses, which no message, report or stored name may show."""

import re

HIDDEN = "***"
_OF_USER = re.compile(r"(://[^:/?#@\s]*):\S*@")
_AS_PARAMETER = re.compile(r"((?:ssl)?password)=[^&\s]*", re.IGNORECASE)


def hide_passwords(text: str) -> str:
    """The text with every password of a URL in it (``//user:password@`` or ``?password=``) as ``***``.

    Of a password with an unquoted ``@`` nothing is left; rather too much is hidden than too little.
    """
    return _AS_PARAMETER.sub(rf"\1={HIDDEN}", _OF_USER.sub(rf"\1:{HIDDEN}@", text))

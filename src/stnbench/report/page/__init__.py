"""Reports as pages: one self-contained file each, whose script and style are its own and whose text is all escaped.

``to_page`` writes a page from leaderboards and, where it is handed in, ``Material``: frames, answers and pictures.
"""

from stnbench.report.page.material import Material
from stnbench.report.page.sections import to_page

__all__ = ["Material", "to_page"]

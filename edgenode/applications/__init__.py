"""Applications, which do the work of a task: the seam, and those that ship.

An application is named in the scenario: one of the built-in names, a name that another package
registered in the entry point group ``edge_testbed.applications``, or ``module:callable``. The
callable is a class with an ``execute`` method (see ``Application``) or a plain function
``f(task, payload)``, which is run in a thread. Modules are imported only when they are named.
"""

from __future__ import annotations

from edgenode.applications.registry import GROUP, check, create, names
from edgenode.applications.seam import Application

__all__ = ["GROUP", "Application", "check", "create", "names"]

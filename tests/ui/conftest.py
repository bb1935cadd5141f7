"""What tests of pages share with those of commands."""

from __future__ import annotations

from tests.cli.conftest import home as home
from tests.cli.conftest import shell as shell
from tests.cli.conftest import testbed as testbed

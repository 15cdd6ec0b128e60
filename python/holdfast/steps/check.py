"""Look at the store."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.backends.base import Check, Finding
from holdfast.drive import Steps


def check() -> Steps[Sequence[Finding]]:
    """What the store finds out about itself."""
    findings: Sequence[Finding] = yield Check()
    return findings

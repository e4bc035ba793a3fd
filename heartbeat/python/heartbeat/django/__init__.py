"""Health endpoints for a Django site: the checker, asked in process. `INSTALLED_APPS = [..., "heartbeat.django"]`.

Nothing is read, started or imported of the checker before the first question.
"""

from __future__ import annotations

from .middleware import LivenessMiddleware

__all__ = ["LivenessMiddleware"]

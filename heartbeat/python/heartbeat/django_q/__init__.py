"""The heartbeat of a Django-Q2 cluster: add `"heartbeat.django_q"` to `INSTALLED_APPS`, and every `qcluster` beats.

The process that guards the others (Django-Q2's sentinel) beats for the whole cluster: its own loop pulses, and a thread of it watches
what that loop cannot see of the worker processes, the pusher and the monitor. The settings are those of `heartbeat.Heartbeat`, in
`Q_CLUSTER["heartbeat"]`.
"""

from __future__ import annotations

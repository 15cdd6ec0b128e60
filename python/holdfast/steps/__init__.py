"""What happens in which round trip, for each method of a saver.

Generators that yield a request for each round trip and are sent its reply. They know no
client and await nothing; `drive` runs them.
"""

from holdfast.steps.check import check
from holdfast.steps.delta import get_delta_channel_history
from holdfast.steps.get import get_tuple
from holdfast.steps.listing import Listing, list_page
from holdfast.steps.puts import put, put_writes
from holdfast.steps.retention import copy_thread, delete_for_runs, delete_thread, prune
from holdfast.steps.sweep import Plan as SweepPlan
from holdfast.steps.sweep import sweep
from holdfast.steps.threads import ThreadListing, expire, list_threads
from holdfast.steps.trim import Trim

__all__ = [
    "Listing",
    "SweepPlan",
    "ThreadListing",
    "Trim",
    "check",
    "copy_thread",
    "delete_for_runs",
    "delete_thread",
    "expire",
    "get_delta_channel_history",
    "get_tuple",
    "list_page",
    "list_threads",
    "prune",
    "put",
    "put_writes",
    "sweep",
]

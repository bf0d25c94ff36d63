"""What you need to test code that renews its tokens: an authorization server in memory, and a clock to move by hand."""

from . import faults
from ._endpoint import Endpoint, Gate
from ._manual_clock import ManualClock
from ._messages import Answer, Received
from ._server import AuthorizationServer
from ._signal import Signal

__all__ = ["Answer", "AuthorizationServer", "Endpoint", "Gate", "ManualClock", "Received", "Signal", "faults"]

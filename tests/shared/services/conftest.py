"""Services are tested over a database that can be cut off at chosen statements."""

from tests.worker.execute_rig import store_that_can_be_cut

__all__ = ["store_that_can_be_cut"]

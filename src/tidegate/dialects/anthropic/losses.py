"""Its place is `tidegate.dialects.losses`, which all dialects share."""

from tidegate.dialects.losses import Losses

__all__ = ["Losses"]

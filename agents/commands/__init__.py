"""What an operator may ask, a module a noun: words in, one call, a table out. Importing one registers its commands with the app."""

from agents.commands import as_of, audit, explain, lag, parked, rebuild, verify, versions, viewers, what_if
from agents.worker import app

__all__ = ["app", "as_of", "audit", "explain", "lag", "parked", "rebuild", "verify", "versions", "viewers", "what_if"]

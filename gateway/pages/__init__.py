"""Pages for people: home, search, upload, watch, and the contract to try out. The API is all they use."""

from gateway.pages.pages import pages, routes, setup

__all__ = ["pages", "routes", "setup"]

"""The language of the system, pure: what can happen, how it is written down, what is refused."""

"""The language of the system, pure: what can happen, how it is written down, what is refused.

Its modules name each other relatively, since the same source is also the package `entertainmenttime_schemas` of the wheel.
"""

__version__ = "1.1.0"
"""Of the events as a whole, and of the wheel that carries them: a new type or field is a new minor version."""

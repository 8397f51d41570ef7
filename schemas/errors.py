"""The kinds of poison: records that no retry can mend. Each is parked with its bytes, its place and the reason."""


class Poison(Exception):
    """A record that cannot be folded. `reason` is a fixed word to group by, the message says what is wrong and where the cure lies."""

    reason = "poison"


class Undecodable(Poison):
    """The bytes are no CloudEvent in binary or structured mode, or their data is no JSON."""

    reason = "undecodable"


class UnknownType(Poison):
    """The event type is none that this system knows, in any version."""

    reason = "unknown-type"


class NotUpcast(Poison):
    """A record of an older version that its upcaster cannot turn into the newer one: a bug of ours, or data that were never valid."""

    reason = "not-upcast"


class InvalidEvent(Poison):
    """A known type with a field missing or out of its bounds; the message names each field."""

    reason = "invalid-event"


class WrongTopic(Poison):
    """A known type on a topic that is not its own."""

    reason = "wrong-topic"


class WrongKey(Poison):
    """The Kafka key is not the id inside the payload, so order and duplicates per key would not hold."""

    reason = "wrong-key"


class WrongPartition(Poison):
    """The record lies on a partition that murmur2 of its key does not give."""

    reason = "wrong-partition"

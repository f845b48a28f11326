"""What crosses from a scheduler to who looks at it: a message now and then, with what has happened since the last.

Arrays travel as their bytes. Text is made of them in the API server, where no step waits for it.
"""

import msgspec

FRESH, PARTLY, STALE, ABSENT = b"fps."  # a page's state


class State(msgspec.Struct):
    """What may change with each pass."""

    passes: int  # finished so far
    end: int  # how far the canvas exists
    dropped_from: int
    block: tuple[int, int]  # the active one
    pages: bytes  # each page's state


class Begun(msgspec.Struct, tag=True):
    """All there is to know of a canvas."""

    id: str
    topics: list[str]  # whose viewers have not seen it yet
    cache: str
    rule: str
    tokens: bytes  # int32
    given: bytes  # bool, of each position
    unmasked_in: bytes  # int32
    prompt_len: int
    response_end: int
    decoded_end: int  # behind what overflows it
    page_size: int
    state: State


class Passed(msgspec.Struct, tag=True):
    """What a pass did."""

    id: str
    topics: list[str]
    number: int
    existed: int  # how far the canvas did
    computed: bytes  # int64, positions, ascending
    unmasked: bytes  # int64, positions
    put: bytes  # int32, their tokens
    refreshed: dict[str, list[int]]  # pages, by what they were marked for
    state: State


class Ended(msgspec.Struct, tag=True):
    id: str
    topics: list[str]
    reason: str


Event = Begun | Passed | Ended


class Line(msgspec.Struct, array_like=True):
    """A running request in the list of them."""

    id: str
    cache: str
    passes: int
    final: int
    length: int


class Overview(msgspec.Struct):
    running: list[Line]
    waiting: int


class Message(msgspec.Struct):
    engine: int  # its number among the machine's
    events: list[Event]
    overview: Overview | None  # now and then


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Message).decode

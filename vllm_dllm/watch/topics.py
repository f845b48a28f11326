"""What a viewer subscribes to."""

EVENTS = "events"  # what every message begins with: each viewer does
FIRST = "first"  # whole canvases of a few requests, as they come
REQUEST = "request "  # and the beginning of a request's id: its canvas

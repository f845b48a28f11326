"""What can be looked at: the names under which events travel."""

OVERVIEW = "overview"  # all running requests, a line each
FIRST = "first"  # whole canvases of a few requests, as they come
REQUEST = "request "  # and the beginning of a request's id: its canvas

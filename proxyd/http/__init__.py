"""HTTP/1 as values: nothing here knows a socket, a clock or a file."""

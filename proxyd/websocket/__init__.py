"""WebSocket connections between a client and an origin server, relayed frame by frame."""

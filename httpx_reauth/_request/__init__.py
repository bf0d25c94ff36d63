"""One HTTP request: header, send, 401, replay."""

"""One HTTP request: set the header, send, handle a 401, send again."""

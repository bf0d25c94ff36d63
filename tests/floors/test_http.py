"""What differs between the two packages."""

from __future__ import annotations

import httpx

from httpx_reauth._request.packages import Face


def test_a_face_is_the_three_things_that_it_was_given():
    face = Face(httpx.URL, httpx.ByteStream, httpx.TransportError)
    assert (face.url, face.byte_stream, face.transport_error) == (httpx.URL, httpx.ByteStream, httpx.TransportError)

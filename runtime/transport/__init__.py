"""Bytes to requests, sockets and frames: the only floor that touches a client's stream."""

//! Envelopes, streaming AEAD, digests, MACs, signatures and password hashing: pure, no I/O

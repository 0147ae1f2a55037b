//! Audit service: the append-only, hash-chained log of every crypto event

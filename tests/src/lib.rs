//! Scenarios over real services, in process and as killed and restarted processes: see `tests/`.

//! Key management service: issues, wraps, rotates and uses keys that never leave it in the clear

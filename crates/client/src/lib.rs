//! Typed async SDK for the four services; what can be verified or encrypted locally is

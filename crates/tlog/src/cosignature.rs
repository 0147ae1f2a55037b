//! Cosignatures of witnesses over checkpoints (C2SP `tlog-cosignature`, the Ed25519 form).
//!
//! ```text
//! signature = time (8 bytes big-endian, seconds since 1970) || Ed25519 signature (64 bytes)
//! message   = "cosignature/v1\ntime " time in decimal "\n" text of the checkpoint
//! ```

/// The latest time of a cosignature, as the specification has it.
pub const MAX_TIME: u64 = i64::MAX as u64;

/// The time is beyond [`MAX_TIME`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a cosignature cannot be of {0} seconds after 1970")]
pub struct TimeTooLarge(pub u64);

/// When a cosignature says that it was made; `None` when the bytes are no cosignature. Verify it first.
pub fn time(signature: &[u8]) -> Option<u64> {
    split(signature).map(|(time, _)| time)
}

/// What a witness signs.
pub(crate) fn message(text: &str, time: u64) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}

pub(crate) fn split(signature: &[u8]) -> Option<(u64, &[u8])> {
    let (time, signature) = signature.split_first_chunk::<8>()?;
    let time = u64::from_be_bytes(*time);
    (signature.len() == 64 && check_time(time).is_ok()).then_some((time, signature))
}

pub(crate) fn check_time(time: u64) -> Result<(), TimeTooLarge> {
    if time <= MAX_TIME {
        Ok(())
    } else {
        Err(TimeTooLarge(time))
    }
}

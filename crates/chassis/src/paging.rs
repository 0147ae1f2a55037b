//! Pages of a list (AIP-158).

use crate::error::Failure;

const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: i32 = 1000;

/// The page size to use for the one that was asked for.
///
/// # Errors
/// `INVALID_FIELD` outside 0..=1000; 0 asks for the default of 100.
pub fn page_size(wish: i32) -> Result<usize, Failure> {
    match wish {
        0 => Ok(DEFAULT_PAGE),
        1..=MAX_PAGE => Ok(wish as usize),
        _ => Err(Failure::invalid("page_size", "must be 1 to 1000, or 0 for 100")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_out_of_range_are_refused_and_zero_means_the_default() {
        for (wish, size) in [(0, 100), (1, 1), (1000, 1000)] {
            assert_eq!(page_size(wish).expect("in range"), size);
        }
        for wish in [-1, 1001, i32::MIN] {
            assert_eq!(
                page_size(wish).expect_err("out of range").reason(),
                "INVALID_FIELD"
            );
        }
    }
}

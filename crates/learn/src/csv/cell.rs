//! What the text of a cell means.

/// Powers of ten that are exact in an `f64`, as far as the quick path needs them.
const POWERS: [f64; 16] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
];

/// Whether a trimmed cell stands for no value: empty, or in any case one of `NA`, `N/A`, `#N/A`, `<NA>`, `NaN`, `null`,
/// `none`, `?`.
pub fn is_missing(cell: &[u8]) -> bool {
    const WORDS: [&[u8]; 7] = [b"na", b"n/a", b"#n/a", b"<na>", b"nan", b"null", b"none"];
    match cell {
        [] | [b'?'] => true,
        [b'0'..=b'9' | b'-' | b'.', ..] => false,
        [_, _, ..] if cell.len() <= 4 => WORDS.iter().any(|word| cell.eq_ignore_ascii_case(word)),
        _ => false,
    }
}

/// A trimmed cell as a number, correctly rounded; `None` for text, and for infinities and NaN.
pub fn number(cell: &[u8]) -> Option<f64> {
    match simple_number(cell) {
        Some((number, _)) => Some(number),
        None => fast_float2::parse::<f64, _>(cell)
            .ok()
            .filter(|number| number.is_finite()),
    }
}

/// Numbers of at most 15 digits without an exponent, and whether they are whole: nearly all that tables hold.
///
/// Both the digits and the power of ten are exact in an `f64`, so one division rounds correctly (Clinger, PLDI 1990).
#[inline]
pub(crate) fn simple_number(cell: &[u8]) -> Option<(f64, bool)> {
    let (negative, digits) = match cell {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, cell),
    };
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    let mut mantissa = 0_u64;
    let mut point = None;
    for (index, byte) in digits.iter().enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit <= 9 {
            mantissa = mantissa * 10 + u64::from(digit);
        } else if *byte == b'.' && point.is_none() {
            point = Some(index);
        } else {
            return None;
        }
    }
    let magnitude = match point {
        None if digits.len() <= 15 => mantissa as f64,
        // `.5` and `5.` are left to the full parser.
        Some(at) if at > 0 && at + 1 < digits.len() => mantissa as f64 / POWERS[digits.len() - 1 - at],
        _ => return None,
    };
    Some((if negative { -magnitude } else { magnitude }, point.is_none()))
}

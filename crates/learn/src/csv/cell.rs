//! What the text of a cell means.

use super::scan::{repeat, zero_bytes};

/// Longest cell that is handled as two words.
const SHORT: usize = 16;

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
    match Short::of(cell).and_then(Short::number) {
        Some((number, _)) => Some(number),
        None => fast_float2::parse::<f64, _>(cell)
            .ok()
            .filter(|number| number.is_finite()),
    }
}

/// A cell of 1 to 16 bytes in two words, little-endian, zeros behind: most cells of most tables. What is done with it
/// does not branch on the text, which no processor could predict.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Short {
    low: u64,
    high: u64,
    length: usize,
}

impl Short {
    #[inline]
    pub(crate) fn of(cell: &[u8]) -> Option<Self> {
        if cell.is_empty() || cell.len() > SHORT {
            return None;
        }
        let mut window = [0; SHORT];
        window[..cell.len()].copy_from_slice(cell);
        Some(Self::in_window(&window, cell.len()))
    }

    /// The cell at `bytes[start..end]`, quicker when the bytes go on behind it; `None` outside of them.
    #[inline]
    pub(super) fn within(bytes: &[u8], start: usize, end: usize) -> Option<Self> {
        let length = end.wrapping_sub(start);
        match bytes.get(start..)?.first_chunk::<SHORT>() {
            Some(window) if length.wrapping_sub(1) < SHORT => Some(Self::in_window(window, length)),
            Some(_) => None,
            None => Self::of(bytes.get(start..end)?),
        }
    }

    /// The first `length` bytes, 1 to 16.
    #[inline]
    fn in_window(window: &[u8; SHORT], length: usize) -> Self {
        let whole = u128::from_le_bytes(*window);
        let (low, high) = (whole as u64, (whole >> 64) as u64);
        if length > 8 {
            Self {
                low,
                high: high & (u64::MAX >> (8 * (16 - length))),
                length,
            }
        } else {
            Self {
                low: low & (u64::MAX >> (8 * (8 - length))),
                high: 0,
                length,
            }
        }
    }

    /// A number of at most 15 digits without an exponent, and whether it is written without a point.
    ///
    /// Both the digits and the power of ten are exact in an `f64`, so one division rounds correctly (Clinger, PLDI 1990).
    #[inline(always)]
    pub(crate) fn number(self) -> Option<(f64, bool)> {
        let sign = u32::from(self.low as u8 == b'-');
        let length = self.length - sign as usize;
        let decimal = if self.length <= 8 {
            Decimal::of_8(self.low >> (8 * sign), length)?
        } else {
            Decimal::of_16(
                (u128::from(self.high) << 64 | u128::from(self.low)) >> (8 * sign),
                length,
            )?
        };
        let magnitude = decimal.mantissa as f64 / POWERS.get(decimal.fraction)?;
        Some((
            if sign == 1 { -magnitude } else { magnitude },
            decimal.digits == length,
        ))
    }

    /// A quick hash with well-mixed bits: the multiply and fold of wyhash.
    #[inline]
    pub(crate) fn hash(self) -> u64 {
        finish(fold(self.low ^ KEYS[0], self.high ^ KEYS[1]), self.length)
    }
}

/// The digits of a text, and how many of them there are and stand behind the point.
struct Decimal {
    mantissa: i64,
    digits: usize,
    fraction: usize,
}

/// Makes the digits `0`–`9` of a text that was combined with points by exclusive or into 0–9.
const POINT_TO_ZERO: u8 = b'.' ^ b'0';

impl Decimal {
    /// Of `length` bytes, at most 8, with zeros behind. A second point is no digit, so it is refused as one.
    #[inline(always)]
    fn of_8(text: u64, length: usize) -> Option<Self> {
        // The point becomes a zero byte, which what follows may be moved over.
        let text = text ^ repeat(b'.');
        let points = zero_bytes(text);
        // All bits when there is no point.
        let before = ((points & points.wrapping_neg()) >> 7).wrapping_sub(1);
        let joined = (text & before) | ((text & !before) >> 8);
        let digits = length - usize::from(points != 0);
        if digits == 0 {
            return None;
        }
        let mantissa = eight_digits((joined ^ repeat(POINT_TO_ZERO)) << (8 * (8 - digits)))?;
        let fraction = if points == 0 {
            0
        } else {
            digits - points.trailing_zeros() as usize / 8
        };
        Some(Self {
            mantissa,
            digits,
            fraction,
        })
    }

    /// Of `length` bytes, at most 16; refused beyond 15 digits.
    #[inline(never)]
    fn of_16(text: u128, length: usize) -> Option<Self> {
        let twice = |word: u64| u128::from(word) << 64 | u128::from(word);
        let text = text ^ twice(repeat(b'.'));
        let points = u128::from(zero_bytes((text >> 64) as u64)) << 64 | u128::from(zero_bytes(text as u64));
        let before = ((points & points.wrapping_neg()) >> 7).wrapping_sub(1);
        let joined = (text & before) | ((text & !before) >> 8);
        let digits = length - usize::from(points != 0);
        if digits == 0 || digits > 15 {
            return None;
        }
        let values = (joined ^ twice(repeat(POINT_TO_ZERO))) << (8 * (16 - digits));
        let mantissa = eight_digits(values as u64)? * 100_000_000 + eight_digits((values >> 64) as u64)?;
        let fraction = if points == 0 {
            0
        } else {
            digits - points.trailing_zeros() as usize / 8
        };
        Some(Self {
            mantissa,
            digits,
            fraction,
        })
    }
}

/// The number that eight bytes of 0 to 9 stand for, the first byte being the most significant digit (Lemire, "Quickly
/// parsing eight digits", 2018).
#[inline]
fn eight_digits(values: u64) -> Option<i64> {
    if (values | values.wrapping_add(repeat(0x76))) & repeat(0x80) != 0 {
        return None;
    }
    let pairs = values.wrapping_mul(10).wrapping_add(values >> 8) & 0x00FF_00FF_00FF_00FF;
    let fours = pairs.wrapping_mul(100).wrapping_add(pairs >> 16) & 0x0000_FFFF_0000_FFFF;
    Some((fours.wrapping_mul(10_000).wrapping_add(fours >> 32) & 0xFFFF_FFFF) as i64)
}

/// Odd numbers without pattern: the fractional parts of the golden ratio and of square roots.
const KEYS: [u64; 3] = [
    0x9E37_79B9_7F4A_7C15,
    0xBB67_AE85_84CA_A73B,
    0x3C6E_F372_FE94_F82B,
];

/// A hash of a cell of any length; the same as [`Short::hash`] for short ones. It is not keyed: data made to collide only
/// spoils the count of its own column.
pub(crate) fn hash(cell: &[u8]) -> u64 {
    if let Some(short) = Short::of(cell) {
        return short.hash();
    }
    let (words, rest) = cell.as_chunks::<8>();
    let mut state = 0;
    for word in words {
        state = fold(state ^ u64::from_le_bytes(*word) ^ KEYS[0], KEYS[1]);
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    finish(
        fold(state ^ u64::from_le_bytes(last) ^ KEYS[0], KEYS[1]),
        cell.len(),
    )
}

#[inline]
fn finish(state: u64, length: usize) -> u64 {
    fold(state ^ length as u64, KEYS[2])
}

/// Both halves of the product.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

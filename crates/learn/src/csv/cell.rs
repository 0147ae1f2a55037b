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

    /// The cell at `bytes[start..end]`; quicker when the bytes go on behind it.
    #[inline]
    pub(super) fn within(bytes: &[u8], start: usize, end: usize) -> Option<Self> {
        let length = end - start;
        match bytes.get(start..).and_then(<[u8]>::first_chunk::<SHORT>) {
            Some(window) if (1..=SHORT).contains(&length) => Some(Self::in_window(window, length)),
            Some(_) => None,
            None => Self::of(&bytes[start..end]),
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

    /// A number of at most 15 digits without an exponent, and whether it is whole.
    ///
    /// Both the digits and the power of ten are exact in an `f64`, so one division rounds correctly (Clinger, PLDI 1990).
    #[inline]
    pub(crate) fn number(self) -> Option<(f64, bool)> {
        let negative = self.low as u8 == b'-';
        let sign = usize::from(negative);
        let length = self.length - sign;
        if length == 0 {
            return None;
        }
        let (digits, fraction, mantissa) = if length <= 8 {
            let text = (self.low >> (8 * sign)) | (self.high << 56 & (sign as u64).wrapping_neg());
            decimal_8(text, length)?
        } else {
            let text = (u128::from(self.high) << 64 | u128::from(self.low)) >> (8 * sign);
            decimal_16(text, length)?
        };
        if digits > 15 {
            return None;
        }
        let magnitude = mantissa as f64 / POWERS[fraction & 15];
        Some((if negative { -magnitude } else { magnitude }, digits == length))
    }

    /// A quick hash with well-mixed bits.
    #[inline]
    pub(crate) fn hash(self) -> u64 {
        mix(self.low ^ mix_in(self.high), self.length)
    }
}

/// Digits, digits behind the point, and the digits as a whole number, of a text of 1 to 8 bytes.
#[inline]
fn decimal_8(text: u64, length: usize) -> Option<(usize, usize, u64)> {
    let points = zero_bytes(text ^ repeat(b'.'));
    // 64 when there is no point.
    let point = points.trailing_zeros() & !7;
    let has_point = usize::from(points != 0);
    let digits = length - has_point;
    let fraction = length.wrapping_sub(point as usize / 8 + 1) * has_point;
    // `.5` and `5.` are left to the full parser, and so are further points.
    if point == 0 || (has_point == 1 && fraction == 0) {
        return None;
    }
    let before = text & below_64(point);
    let after = text & !below_64(point) & !below_64_plus_byte(point);
    let joined = before | after >> 8;
    let values = (joined ^ repeat(b'0')) << (8 * (8 - digits));
    eight_digits(values).map(|mantissa| (digits, fraction, mantissa))
}

/// As [`decimal_8`], of a text of up to 16 bytes.
#[inline]
fn decimal_16(text: u128, length: usize) -> Option<(usize, usize, u64)> {
    let points_low = zero_bytes(text as u64 ^ repeat(b'.'));
    let points_high = zero_bytes((text >> 64) as u64 ^ repeat(b'.'));
    let points = u128::from(points_high) << 64 | u128::from(points_low);
    let point = points.trailing_zeros() & !7;
    let has_point = usize::from(points != 0);
    let digits = length - has_point;
    let fraction = length.wrapping_sub(point as usize / 8 + 1) * has_point;
    if point == 0 || (has_point == 1 && fraction == 0) {
        return None;
    }
    let before = text & !u128::MAX.checked_shl(point).unwrap_or(0);
    let after = text & u128::MAX.checked_shl(point + 8).unwrap_or(0);
    let joined = before | after >> 8;
    let zeros = u128::from(repeat(b'0')) << 64 | u128::from(repeat(b'0'));
    let values = (joined ^ zeros) << (8 * (16 - digits));
    let first = eight_digits(values as u64)?;
    let second = eight_digits((values >> 64) as u64)?;
    Some((digits, fraction, first * 100_000_000 + second))
}

/// All bits below `bit`, which is at most 64.
#[inline]
fn below_64(bit: u32) -> u64 {
    !u64::MAX.checked_shl(bit).unwrap_or(0)
}

#[inline]
fn below_64_plus_byte(bit: u32) -> u64 {
    !u64::MAX.checked_shl(bit + 8).unwrap_or(0)
}

/// The number that eight bytes of 0 to 9 stand for, the first byte being the most significant digit (Lemire, "Quickly
/// parsing eight digits", 2018).
#[inline]
fn eight_digits(values: u64) -> Option<u64> {
    if (values | values.wrapping_add(repeat(0x76))) & repeat(0x80) != 0 {
        return None;
    }
    let pairs = values.wrapping_mul(10).wrapping_add(values >> 8) & 0x00FF_00FF_00FF_00FF;
    let fours = pairs.wrapping_mul(100).wrapping_add(pairs >> 16) & 0x0000_FFFF_0000_FFFF;
    Some(fours.wrapping_mul(10_000).wrapping_add(fours >> 32) & 0xFFFF_FFFF)
}

/// A hash of a cell of any length; the same as [`Short::hash`] for short ones. It is not keyed: data made to collide only
/// spoils the count of its own column.
pub(crate) fn hash(cell: &[u8]) -> u64 {
    if let Some(short) = Short::of(cell) {
        return short.hash();
    }
    let (words, rest) = cell.as_chunks::<8>();
    let mut state = 0;
    for word in words {
        state = mix_in(state ^ u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(state ^ u64::from_le_bytes(last), cell.len())
}

#[inline]
fn mix_in(word: u64) -> u64 {
    word.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
}

/// The finaliser of MurmurHash3.
#[inline]
fn mix(word: u64, length: usize) -> u64 {
    let mut state = word ^ (length as u64) << 56;
    state = (state ^ (state >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    state = (state ^ (state >> 33)).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    state ^ (state >> 33)
}

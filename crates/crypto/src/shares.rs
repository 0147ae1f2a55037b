//! A key in shares (Shamir 1979, in GF(2^8), byte by byte): as many as the threshold give the key, fewer give nothing.
//!
//! The set's id follows from the key, so that what was combined is known to be the key, and a share of another set is told by its id. Eight bytes of a
//! hash of 32 random bytes help nobody to find them. As text a share is
//!
//! ```text
//! asxs1 | base64url( set id 8 | threshold 1 | index 1 | value 32 | checksum 4 )
//! ```
//!
//! the checksum the first four bytes of SHA-256 of `asterism/share/1` and what stands before it.

use std::{convert::Infallible, fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rand_core::{TryCryptoRng, TryRng};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use vsss_rs::{Gf256, IdentifierGf256};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{CryptoError, Digest, SecretBytes, SecretKey, kdf};

/// Most shares of a key.
pub const MAX_SHARES: u8 = 16;
/// Fewest shares that may be needed: with one, a share would be the key.
pub const MIN_THRESHOLD: u8 = 2;
/// Starts every share as text; the digit is the format's version.
const PREFIX: &str = "asxs1";
const PREFIX_OF_ANY_VERSION: &str = "asxs";
const VALUE_BYTES: usize = 32;
const SET_BYTES: usize = 8;
const CHECKSUM_BYTES: usize = 4;
const SHARE_BYTES: usize = SET_BYTES + 2 + VALUE_BYTES + CHECKSUM_BYTES;
const LABEL: &str = "asterism/share-set/v1";

/// Why something is no share, or shares give no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShareError {
    /// The text is no share, or one that was mistyped.
    #[error("not a share like asxs1…, or mistyped")]
    Text,
    /// A share of a later format.
    #[error("a share of a newer format; use a newer version")]
    Newer,
    /// Not as many as are needed.
    #[error("{given} of {threshold} shares; give the others too")]
    TooFew {
        /// How many were given.
        given: usize,
        /// How many are needed.
        threshold: u8,
    },
    /// Shares of more than one set.
    #[error("shares of different sets; give only those with the same seal id")]
    Mixed,
    /// The same share more than once.
    #[error("share {0} was given twice; give another")]
    Repeated(u8),
    /// All are well formed, and the key that they give is not the one that was split.
    #[error("these shares do not give the key that was split; one of them is forged or of another splitting")]
    Wrong,
}

/// Names a set of shares: follows from the key that was split. Sixteen lower-case hex digits as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SetId([u8; SET_BYTES]);

impl SetId {
    /// The id of all shares of this key.
    pub fn of(key: &SecretKey) -> Self {
        let derived = kdf::derive(key, b"", LABEL, b"");
        let mut id = [0; SET_BYTES];
        id.copy_from_slice(&derived.expose()[..SET_BYTES]);
        Self(id)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; SET_BYTES] {
        &self.0
    }
}

impl fmt::Display for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// One of the shares of a key. Wiped when dropped; neither shown nor copied.
pub struct Share {
    set: SetId,
    threshold: u8,
    index: u8,
    // Boxed: moving the share moves a pointer and leaves no copies behind.
    value: Box<Zeroizing<[u8; VALUE_BYTES]>>,
}

impl Share {
    /// The set that it belongs to.
    pub fn set(&self) -> SetId {
        self.set
    }

    /// How many of its set give the key.
    pub fn threshold(&self) -> u8 {
        self.threshold
    }

    /// Which of its set it is, from 1.
    pub fn index(&self) -> u8 {
        self.index
    }

    /// As text, to be kept secret.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(SHARE_BYTES));
        bytes.extend_from_slice(&self.set.0);
        bytes.extend_from_slice(&[self.threshold, self.index]);
        bytes.extend_from_slice(&self.value[..]);
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        let coded = Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_slice()));
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + coded.len()));
        text.push_str(PREFIX);
        text.push_str(&coded);
        text
    }

    /// SHA-256 of the text: tells this share from others, and is no secret.
    pub fn digest(&self) -> Digest {
        Digest::of(self.to_text().as_bytes())
    }
}

impl FromStr for Share {
    type Err = ShareError;

    fn from_str(text: &str) -> Result<Self, ShareError> {
        let Some(coded) = text.strip_prefix(PREFIX) else {
            let later = text
                .strip_prefix(PREFIX_OF_ANY_VERSION)
                .is_some_and(|rest| rest.starts_with(|digit: char| ('2'..='9').contains(&digit)));
            return Err(if later {
                ShareError::Newer
            } else {
                ShareError::Text
            });
        };
        let mut bytes = Zeroizing::new([0; SHARE_BYTES]);
        let length = URL_SAFE_NO_PAD
            .decode_slice(coded, bytes.as_mut_slice())
            .map_err(|_| ShareError::Text)?;
        let (body, given) = bytes.split_at(SHARE_BYTES - CHECKSUM_BYTES);
        if length != SHARE_BYTES || given != checksum(body) {
            return Err(ShareError::Text);
        }
        let (set, rest) = body.split_first_chunk::<SET_BYTES>().ok_or(ShareError::Text)?;
        let [threshold, index, value @ ..] = rest else {
            return Err(ShareError::Text);
        };
        if !(MIN_THRESHOLD..=MAX_SHARES).contains(threshold) || !(1..=MAX_SHARES).contains(index) {
            return Err(ShareError::Text);
        }
        let mut share = Self {
            set: SetId(*set),
            threshold: *threshold,
            index: *index,
            value: Box::new(Zeroizing::new([0; VALUE_BYTES])),
        };
        share.value.copy_from_slice(value);
        Ok(share)
    }
}

/// Splits a random key into `shares`, of which any `threshold` give it again, and fewer tell nothing of it.
///
/// # Errors
/// [`CryptoError::InvalidParameters`] unless 2 <= threshold <= shares <= 16; [`CryptoError::Randomness`].
pub fn split(key: &SecretKey, threshold: u8, shares: u8) -> Result<Vec<Share>, CryptoError> {
    if threshold < MIN_THRESHOLD || threshold > shares || shares > MAX_SHARES {
        return Err(CryptoError::InvalidParameters(
            "a key is split into 2 to 16 shares, of which 2 or more are needed",
        ));
    }
    let mut drawn = Drawn::new(usize::from(threshold - 1) * VALUE_BYTES)?;
    let indices = (1..=shares).map(|index| IdentifierGf256(Gf256(index)));
    let split = Gf256::split_bytes_with_participant_ids_iter(
        usize::from(threshold),
        usize::from(shares),
        key.expose(),
        &mut drawn,
        indices,
    );
    let split = split.map_err(|_| CryptoError::InvalidParameters("a key that cannot be split"))?;
    let split: Vec<_> = split.into_iter().map(Zeroizing::new).collect();
    if drawn.ran_dry {
        return Err(CryptoError::Randomness);
    }
    let set = SetId::of(key);
    let share = |bytes: &Zeroizing<Vec<u8>>| match bytes.as_slice() {
        [index, value @ ..] if value.len() == VALUE_BYTES => {
            let mut share = Share {
                set,
                threshold,
                index: *index,
                value: Box::new(Zeroizing::new([0; VALUE_BYTES])),
            };
            share.value.copy_from_slice(value);
            Ok(share)
        }
        _ => Err(CryptoError::InvalidKey),
    };
    split.iter().map(share).collect()
}

/// The key whose shares these are.
///
/// # Errors
/// [`ShareError`], but never for a share's text.
pub fn combine<'a>(shares: impl IntoIterator<Item = &'a Share>) -> Result<SecretKey, ShareError> {
    let shares: Vec<&Share> = shares.into_iter().collect();
    let Some(first) = shares.first() else {
        return Err(ShareError::TooFew {
            given: 0,
            threshold: MIN_THRESHOLD,
        });
    };
    let same = |share: &&Share| share.set == first.set && share.threshold == first.threshold;
    if !shares.iter().all(same) {
        return Err(ShareError::Mixed);
    }
    for (at, share) in shares.iter().enumerate() {
        if shares[..at].iter().any(|before| before.index == share.index) {
            return Err(ShareError::Repeated(share.index));
        }
    }
    if shares.len() < usize::from(first.threshold) {
        return Err(ShareError::TooFew {
            given: shares.len(),
            threshold: first.threshold,
        });
    }
    let mut bytes: Vec<Vec<u8>> = shares
        .iter()
        .map(|share| [&[share.index], share.value.as_slice()].concat())
        .collect();
    let combined = Gf256::combine_bytes(&bytes).map(SecretBytes::new);
    bytes.zeroize();
    let key = combined.map_err(|_| ShareError::Wrong)?;
    let key = SecretKey::try_from_slice(key.expose()).map_err(|_| ShareError::Wrong)?;
    if bool::from(SetId::of(&key).0.ct_eq(&first.set.0)) {
        Ok(key)
    } else {
        Err(ShareError::Wrong)
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hash = Sha256::new();
    hash.update(b"asterism/share/1");
    hash.update(bytes);
    let [a, b, c, d, ..]: [u8; 32] = hash.finalize().into();
    [a, b, c, d]
}

/// Random numbers that were drawn from the operating system beforehand, so that their lack is an error and no panic.
struct Drawn {
    bytes: SecretBytes,
    at: usize,
    ran_dry: bool,
}

impl Drawn {
    /// Draws so many numbers of 32 bits.
    fn new(numbers: usize) -> Result<Self, CryptoError> {
        Ok(Self {
            bytes: SecretBytes::random(numbers * 4)?,
            at: 0,
            ran_dry: false,
        })
    }
}

impl TryRng for Drawn {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut number = [0; 4];
        self.try_fill_bytes(&mut number)?;
        Ok(u32::from_le_bytes(number))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut number = [0; 8];
        self.try_fill_bytes(&mut number)?;
        Ok(u64::from_le_bytes(number))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        match self.bytes.expose().get(self.at..self.at + out.len()) {
            Some(drawn) => out.copy_from_slice(drawn),
            None => self.ran_dry = true,
        }
        self.at += out.len();
        Ok(())
    }
}

impl TryCryptoRng for Drawn {}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn key() -> SecretKey {
        SecretKey::generate().expect("a key")
    }

    /// Every choice of shares, by the bits of a number.
    fn subsets(shares: &[Share]) -> impl Iterator<Item = Vec<&Share>> {
        (0..1_u32 << shares.len()).map(|chosen| {
            let chosen = move |at: &usize| chosen >> at & 1 == 1;
            (0..shares.len()).filter(chosen).map(|at| &shares[at]).collect()
        })
    }

    #[test]
    fn as_many_shares_as_the_threshold_give_the_key_whichever_they_are_and_fewer_do_not() {
        for (threshold, count) in [(2, 2), (2, 3), (3, 5), (5, 8), (7, 7)] {
            let key = key();
            let shares = split(&key, threshold, count).expect("split");
            assert_eq!(shares.len(), usize::from(count));
            for chosen in subsets(&shares) {
                let given = chosen.len();
                match combine(chosen) {
                    Ok(combined) => {
                        assert!(given >= usize::from(threshold));
                        assert_eq!(combined.expose(), key.expose());
                    }
                    Err(error) => {
                        assert!(given < usize::from(threshold), "{error}");
                        assert!(matches!(error, ShareError::TooFew { given: told, .. } if told == given));
                    }
                }
            }
        }
    }

    /// That fewer are refused is no proof that they tell nothing: with the threshold lowered by hand they give another key.
    #[test]
    fn fewer_shares_do_not_give_the_key_either_when_they_say_that_they_are_enough() {
        let mut shares = split(&key(), 3, 5).expect("split");
        for share in &mut shares {
            share.threshold = 2;
        }
        for chosen in subsets(&shares).filter(|chosen| chosen.len() == 2) {
            assert_eq!(combine(chosen).err(), Some(ShareError::Wrong));
        }
        assert!(combine(&shares[..3]).is_ok());
    }

    /// Coefficients that are never zero would tell of each byte of the key one value that it is not.
    #[test]
    fn a_share_may_have_a_byte_of_the_key_in_its_place() {
        let key = SecretKey::from_bytes([0x5a; 32]);
        let equal = |share: &Share| share.value.iter().filter(|byte| **byte == 0x5a).count();
        let seen: usize = (0..400)
            .flat_map(|_| split(&key, 2, 2).expect("split"))
            .map(|share| equal(&share))
            .sum();
        // 25600 bytes, one in 256.
        assert!((30..300).contains(&seen), "{seen}");
    }

    #[test]
    fn what_does_not_go_together_is_refused_and_said() {
        let key = key();
        let shares = split(&key, 3, 5).expect("split");
        let others = split(&self::key(), 3, 5).expect("split");
        let combined = |shares: &[&Share]| combine(shares.iter().copied()).err();
        assert_eq!(
            combined(&[]),
            Some(ShareError::TooFew {
                given: 0,
                threshold: 2
            })
        );
        assert_eq!(
            combined(&[&shares[0], &shares[1], &others[2]]),
            Some(ShareError::Mixed)
        );
        assert_eq!(
            combined(&[&shares[0], &shares[1], &shares[0]]),
            Some(ShareError::Repeated(1))
        );
        // The same key, split again: the same id, and other shares.
        let again = split(&key, 3, 5).expect("split");
        assert_eq!(again[0].set(), shares[0].set());
        assert_eq!(
            combined(&[&shares[0], &shares[1], &again[2]]),
            Some(ShareError::Wrong)
        );
        let elsewhere = split(&key, 2, 5).expect("split");
        assert_eq!(
            combined(&[&shares[0], &shares[1], &elsewhere[2]]),
            Some(ShareError::Mixed)
        );
    }

    #[test]
    fn a_threshold_that_makes_no_sense_is_refused() {
        for (threshold, shares) in [(0, 3), (1, 3), (4, 3), (2, 1), (2, 17), (17, 17)] {
            assert!(
                split(&key(), threshold, shares).is_err(),
                "{threshold} of {shares}"
            );
        }
        assert_eq!(split(&key(), 16, 16).expect("split").len(), 16);
    }

    /// Fixed for ever: shares lie in safes.
    #[test]
    fn shares_of_version_1_are_read_and_give_their_key() {
        let texts = [
            "asxs1G0doGlU4aJICAc2eaMmQMIKMQD7tAhH67-5OfNMN-bknw7TxfBXVcxXaGVO6Gg",
            "asxs1G0doGlU4aJICAoEk1ow3bxUKmGffGTb419asy4sv1VZ0pFvS1geVwQiOiXJF-w",
            "asxs1G0doGlU4aJICA0y7vEajWpGB0FA4ECsPNjfypkoxOPpFcPc6sAlcrwNLhQy2Ng",
        ];
        let shares = texts.map(|text| text.parse::<Share>().expect("read"));
        for (share, text) in shares.iter().zip(texts) {
            assert_eq!(share.to_text().as_str(), text);
        }
        let key: Vec<u8> = (0..32).collect();
        for chosen in subsets(&shares).filter(|chosen| chosen.len() > 1) {
            assert_eq!(combine(chosen).expect("combined").expose().as_slice(), key);
        }
        assert_eq!(shares[0].set().to_string(), "1b47681a55386892");
        assert_eq!((shares[2].index(), shares[2].threshold()), (3, 2));
        assert_eq!(shares[0].digest(), Digest::of(texts[0].as_bytes()));
    }

    #[test]
    fn a_share_of_a_later_format_is_told_from_a_mistyped_one() {
        let text = split(&key(), 2, 2).expect("split")[0].to_text();
        let read = |text: &str| text.parse::<Share>().err();
        assert_eq!(read(&text.replacen("asxs1", "asxs2", 1)), Some(ShareError::Newer));
        for wrong in ["", "asxs", "asxs1", "asxsA", "asx1"] {
            assert_eq!(read(wrong), Some(ShareError::Text), "{wrong}");
        }
        for wrong in [
            format!("{}A", *text),
            format!(" {}", *text),
            text[..text.len() - 1].to_owned(),
        ] {
            assert_eq!(read(&wrong), Some(ShareError::Text), "{wrong}");
        }
    }

    #[test]
    fn no_two_shares_have_the_same_text() {
        let shares: Vec<Share> = (0..20)
            .flat_map(|_| split(&key(), 2, 16).expect("split"))
            .collect();
        let texts: HashSet<String> = shares.iter().map(|share| share.to_text().to_string()).collect();
        assert_eq!(texts.len(), 320);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_share_reads_back_and_a_mistyped_one_does_not(at in any::<prop::sample::Index>(), to in "[A-Za-z0-9_-]") {
            let shares = split(&key(), 2, 3).expect("split");
            let text = shares[1].to_text().to_string();
            let read: Share = text.parse().expect("reads");
            prop_assert_eq!((read.set(), read.index(), read.threshold()), (shares[1].set(), 2, 2));
            prop_assert_eq!(&read.value[..], &shares[1].value[..]);
            let at = at.index(text.len());
            let mut typed = text.clone();
            typed.replace_range(at..=at, &to);
            prop_assume!(typed != text);
            prop_assert!(typed.parse::<Share>().is_err());
        }

        #[test]
        fn any_key_comes_back_from_any_shares(bytes: [u8; 32], count in 2_u8..=16, below: u8, order in any::<u64>()) {
            let threshold = 2 + below % (count - 1);
            let key = SecretKey::from_bytes(bytes);
            let mut shares = split(&key, threshold, count).expect("split");
            shares.sort_by_key(|share| (u64::from(share.index()) * 2_654_435_761) ^ order);
            let combined = combine(&shares[..usize::from(threshold)]).expect("combined");
            prop_assert_eq!(combined.expose(), &bytes);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "(asxs1)?\\PC{0,100}") {
            let _ = text.parse::<Share>();
        }
    }
}

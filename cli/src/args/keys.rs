//! The command line of `asterism keys`.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

use super::pair;

/// `asterism keys`
#[derive(Subcommand, Debug)]
pub enum KeysCommand {
    /// Creates a key.
    Create {
        /// 1–63 of a-z, 0-9 and -, starting with a letter.
        id: String,
        /// What the key is for.
        #[arg(long, value_enum, default_value_t = KeyKind::Aes256Gcm)]
        r#type: KeyKind,
        /// name=value; may be repeated.
        #[arg(long, value_parser = pair)]
        label: Vec<(String, String)>,
        /// Its first version waits until then, e.g. 2027-01-31T12:00:00Z.
        #[arg(long, value_name = "TIME")]
        active_from: Option<jiff::Timestamp>,
        /// `keys export` may give its material out. Cannot be changed later.
        #[arg(long)]
        exportable: bool,
        /// So many other people have to approve destruction and export: 0 to 3.
        #[arg(long, value_name = "NUMBER", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=3))]
        approvals: u32,
    },
    /// Lists keys.
    List,
    /// Shows a key and its versions.
    Show {
        /// Key id.
        id: String,
    },
    /// Adds a version and makes it primary.
    Rotate {
        /// Key id.
        id: String,
        /// The new version waits until then, e.g. 2027-01-31T12:00:00Z.
        #[arg(long, value_name = "TIME")]
        active_from: Option<jiff::Timestamp>,
        /// Only if the key still has this etag.
        #[arg(long, default_value = "")]
        etag: String,
    },
    /// Changes labels, scheduled rotation or the oldest version that may decrypt.
    #[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
    Update {
        /// Key id.
        id: String,
        /// name=value; may be repeated. Replaces all labels.
        #[arg(long, value_parser = pair, group = "change", conflicts_with = "no_labels")]
        label: Vec<(String, String)>,
        /// Removes all labels.
        #[arg(long, group = "change")]
        no_labels: bool,
        /// Adds a version every so many days; 0 for never.
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(..=36_525), group = "change")]
        rotate_every: Option<u32>,
        /// Older versions neither decrypt nor verify.
        #[arg(long, value_name = "VERSION", group = "change")]
        min_decryption_version: Option<u32>,
        /// So many other people have to approve destruction and export: 0 to 3.
        #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(..=3), group = "change")]
        approvals: Option<u32>,
        /// Only if the key still has this etag.
        #[arg(long, default_value = "")]
        etag: String,
    },
    /// Sets the state of a version.
    State {
        /// Key id.
        id: String,
        /// Which version.
        #[arg(value_name = "VERSION")]
        key_version: u32,
        /// The new state.
        #[arg(value_enum)]
        state: VersionState,
        /// Only if the key still has this etag.
        #[arg(long, default_value = "")]
        etag: String,
    },
    /// Has a version destroyed when a window is over; it refuses all use at once.
    Destroy {
        /// Key id.
        id: String,
        /// Which version.
        #[arg(value_name = "VERSION")]
        key_version: u32,
        /// How long it can be undone: 7 to 30.
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=30))]
        window_days: u32,
        /// Only if the key still has this etag.
        #[arg(long, default_value = "")]
        etag: String,
    },
    /// Undoes a destruction while its window lasts.
    Restore {
        /// Key id.
        id: String,
        /// Which version.
        #[arg(value_name = "VERSION")]
        key_version: u32,
        /// Only if the key still has this etag.
        #[arg(long, default_value = "")]
        etag: String,
    },
    /// Brings a ciphertext (base64 from standard input) under the primary version, without decrypting it here.
    Reencrypt {
        /// Key id.
        id: String,
        /// Under this key instead of the same.
        #[arg(long, default_value = "", value_name = "ID")]
        to: String,
        /// Additional authenticated data; stays the same.
        #[arg(long, default_value = "")]
        aad: String,
        /// Each line of the input is an item of its own (base64), up to 1000 a call.
        #[arg(long)]
        lines: bool,
    },
    /// Encrypts standard input (at most 64 KiB) to base64.
    Encrypt {
        /// Key id.
        id: String,
        /// Additional authenticated data; the same is needed to decrypt.
        #[arg(long, default_value = "")]
        aad: String,
        /// Each line of the input is an item of its own (base64), up to 1000 a call.
        #[arg(long)]
        lines: bool,
    },
    /// Decrypts base64 from standard input.
    Decrypt {
        /// Key id.
        id: String,
        /// Additional authenticated data.
        #[arg(long, default_value = "")]
        aad: String,
        /// Each line of the input is an item of its own (base64; base64 comes out), up to 1000 a call.
        #[arg(long)]
        lines: bool,
    },
    /// Makes data keys, and prints them wrapped in base64.
    DataKey {
        /// Key id.
        id: String,
        /// Additional authenticated data; the same is needed to unwrap.
        #[arg(long, default_value = "")]
        aad: String,
        /// How many.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
        count: u32,
        /// Prints the plaintext before the wrapped key, both in base64.
        #[arg(long)]
        plaintext: bool,
    },
    /// Computes the MAC of standard input (at most 64 KiB); prints it in base64.
    Mac {
        /// Key id.
        id: String,
        /// Each line of the input is an item of its own (base64), up to 1000 a call.
        #[arg(long)]
        lines: bool,
    },
    /// Verifies a MAC over standard input.
    #[command(group = clap::ArgGroup::new("what").required(true))]
    VerifyMac {
        /// Key id.
        id: String,
        /// In base64.
        #[arg(long, group = "what")]
        mac: Option<String>,
        /// Each line of the input is data and its MAC, both in base64, up to 1000 a call.
        #[arg(long, group = "what")]
        lines: bool,
    },
    /// Signs standard input; prints the signature in base64.
    Sign {
        /// Key id.
        id: String,
        /// How the signature is written.
        #[arg(long, value_enum, default_value_t = Encoding::Der)]
        encoding: Encoding,
        /// Each line of the input is an item of its own (base64), up to 1000 a call.
        #[arg(long)]
        lines: bool,
    },
    /// Verifies a signature over standard input.
    #[command(group = clap::ArgGroup::new("what").required(true))]
    Verify {
        /// Key id.
        id: String,
        /// In base64.
        #[arg(long, group = "what")]
        signature: Option<String>,
        /// How the signature is written.
        #[arg(long, value_enum, default_value_t = Encoding::Der)]
        encoding: Encoding,
        /// Each line of the input is a message and its signature, both in base64, up to 1000 a call.
        #[arg(long, group = "what")]
        lines: bool,
    },
    /// Seals, wraps, agrees, imports and exports.
    #[command(flatten)]
    Material(MaterialCommand),
    /// Prints a public key in PEM.
    PublicKey {
        /// Key id.
        id: String,
        /// 0 means the primary version.
        #[arg(long, default_value_t = 0)]
        key_version: u32,
    },
}

/// The part of `asterism keys` that deals with key material, public-key encryption and random bytes.
#[derive(Subcommand, Debug)]
pub enum MaterialCommand {
    /// Encrypts standard input (at most 64 KiB) to the public key of an ec-p256-hpke key, here; prints base64.
    Seal {
        /// Key id.
        id: String,
        /// HPKE's info; the same is needed to open.
        #[arg(long, default_value = "")]
        info: String,
        /// Additional authenticated data; the same is needed to open.
        #[arg(long, default_value = "")]
        aad: String,
    },
    /// Decrypts what was encrypted to the public key of an ec-p256-hpke key: base64 from standard input.
    Open {
        /// Key id.
        id: String,
        /// HPKE's info.
        #[arg(long, default_value = "")]
        info: String,
        /// Additional authenticated data.
        #[arg(long, default_value = "")]
        aad: String,
    },
    /// Prints the secret that an ec-p256-ecdh key and a public key (PEM from standard input) share, in base64.
    Agree {
        /// Key id.
        id: String,
        /// 0 means the primary version.
        #[arg(long, default_value_t = 0)]
        key_version: u32,
    },
    /// Wraps key material (base64 from standard input) under an aes256-kwp key; prints base64.
    Wrap {
        /// Key id.
        id: String,
    },
    /// Unwraps key material (base64 from standard input); prints base64.
    Unwrap {
        /// Key id.
        id: String,
    },
    /// Prints random bytes in base64.
    Random {
        /// How many.
        #[arg(value_parser = clap::value_parser!(u32).range(1..=65_536))]
        bytes: u32,
    },
    /// Makes a key, or a further version of one, of material that is read from standard input (base64) and encrypted here.
    Import {
        /// Key id.
        id: String,
        /// What the key is for.
        #[arg(long, value_enum)]
        r#type: KeyKind,
        /// For a new key: `keys export` may give its material out. Cannot be changed later.
        #[arg(long)]
        exportable: bool,
    },
    /// Prints the material of a version of an exportable key in base64: decrypted here, or still encrypted to a recipient.
    Export {
        /// Key id.
        id: String,
        /// Which version.
        #[arg(value_name = "VERSION")]
        key_version: u32,
        /// A public key (P-256, PEM): prints the material encrypted to it. Needed where others have to approve, who approve the recipient.
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
}

/// States that a version can be set to.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionState {
    /// Does everything.
    Active,
    /// Does nothing for the time being.
    Suspended,
    /// Decrypts and verifies only.
    Deactivated,
    /// As deactivated, and events say so.
    Compromised,
}

/// Key types.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// AES-256-GCM.
    Aes256Gcm,
    /// HMAC-SHA256.
    HmacSha256,
    /// ECDSA P-256 with SHA-256.
    EcSignP256Sha256,
    /// HMAC-SHA512.
    HmacSha512,
    /// Decrypts by HPKE over P-256.
    EcP256Hpke,
    /// Agrees on secrets by ECDH over P-256.
    EcP256Ecdh,
    /// Wraps keys by AES-256 key wrap with padding.
    Aes256Kwp,
    /// Encrypts deterministically by AES-256-SIV: shows which plaintexts are equal.
    Aes256Siv,
}

/// How a signature is written.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// ASN.1 DER.
    Der,
    /// r and s, 32 bytes each.
    Fixed,
}

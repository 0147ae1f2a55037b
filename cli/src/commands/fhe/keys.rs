//! Secret keys in files: the parameter set and the seed that a key follows from, in words.

use std::{os::unix::fs::PermissionsExt as _, path::Path};

use asterism_fhe::{bundle::Bundle, keys::SecretKey, params::ParamsId, wire};
use asterism_store::files::write_atomic;
use zeroize::Zeroizing;

use super::read;
use crate::error::CliError;

/// Names of the files that `keygen` writes.
pub(super) const SECRET: &str = "secret.key";
pub(super) const EVALUATION: &str = "evaluation.key";
/// The first line; the next format has another number.
const FIRST_LINE: &str = "asterism-fhe-secret-key 1";

/// Writes a secret key that only its owner may read.
///
/// # Errors
/// [`CliError::Usage`] when the file exists: queries may wait for their replies under that key.
pub(super) fn write_secret(file: &Path, key: &SecretKey) -> Result<(), CliError> {
    if file.exists() {
        return Err(CliError::Usage(format!(
            "{} exists; keys are not overwritten",
            file.display()
        )));
    }
    write_atomic(file, to_text(key).as_bytes(), 0o600)
        .map_err(|error| CliError::Other(format!("{}: {error}", file.display())))
}

/// Reads a secret key.
///
/// # Errors
/// [`CliError::Usage`] for a file that others may read, and for one that is no such key.
pub(super) fn read_secret(file: &Path) -> Result<SecretKey, CliError> {
    let metadata = std::fs::metadata(file).map_err(|error| CliError::file(file, error))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o177 != 0 {
        return Err(CliError::Usage(format!(
            "{}: its mode is {mode:04o}, and a secret key must not be wider than 0600",
            file.display()
        )));
    }
    let bytes = Zeroizing::new(read(file)?);
    str::from_utf8(&bytes).ok().and_then(from_text).ok_or_else(|| {
        CliError::Usage(format!(
            "{}: this is not a secret key of this version",
            file.display()
        ))
    })
}

/// Secret and evaluation key of a directory that `keygen` wrote for the parameter set of `bundle`.
///
/// # Errors
/// As [`read_secret`]; [`CliError::Usage`] for keys of another parameter set.
pub(super) fn read_pair(dir: &Path, bundle: &Bundle) -> Result<(SecretKey, Option<Vec<u8>>), CliError> {
    let key = read_secret(&dir.join(SECRET))?;
    let (expected, found) = (bundle.params_id().name(), key.params_id().name());
    if expected != found {
        return Err(CliError::Usage(format!(
            "{}: made for parameter set {found}, and this model uses {expected}",
            dir.display()
        )));
    }
    let needed = wire::evaluation_key_len(key.params_id()) > 0;
    let evaluation_key = needed.then(|| read(&dir.join(EVALUATION))).transpose()?;
    Ok((key, evaluation_key))
}

fn to_text(key: &SecretKey) -> Zeroizing<String> {
    let (params, seed) = (key.params_id().name(), Zeroizing::new(hex::encode(key.seed())));
    Zeroizing::new(format!("{FIRST_LINE}\nparams {params}\nseed {}\n", seed.as_str()))
}

fn from_text(text: &str) -> Option<SecretKey> {
    let mut lines = text.lines();
    if lines.next()? != FIRST_LINE {
        return None;
    }
    let id = ParamsId::from_name(lines.next()?.strip_prefix("params ")?)?;
    let mut seed = [0; 16];
    hex::decode_to_slice(lines.next()?.strip_prefix("seed ")?, &mut seed).ok()?;
    match lines.next() {
        None => Some(SecretKey::from_seed(id, seed)),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};

    use super::*;

    #[test]
    fn a_key_comes_back_and_only_from_a_file_of_its_owner_alone() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("secret.key");
        let key = SecretKey::generate(ParamsId::Paths).expect("random bytes");
        write_secret(&file, &key).expect("written");
        let again = read_secret(&file).expect("read");
        assert_eq!((again.params_id(), again.seed()), (key.params_id(), key.seed()));
        assert!(write_secret(&file, &key).is_err(), "it was overwritten");
        for mode in [0o640, 0o604, 0o700] {
            set_permissions(&file, Permissions::from_mode(mode)).expect("permissions");
            let problem = read_secret(&file).err().map(|error| error.to_string());
            assert!(
                problem.is_some_and(|problem| problem.contains("0600")),
                "{mode:o}"
            );
        }
        set_permissions(&file, Permissions::from_mode(0o400)).expect("permissions");
        assert!(read_secret(&file).is_ok());
    }

    #[test]
    fn what_is_not_a_key_is_refused() {
        let text = to_text(&SecretKey::generate(ParamsId::Linear).expect("random bytes"));
        assert!(from_text(&text).is_some());
        let wrong = [
            text.replace("key 1", "key 2"),
            text.replace("linear", "circular"),
            text.replace("seed ", "seed 00"),
            format!("{}more\n", text.as_str()),
            text.lines().take(2).collect::<Vec<_>>().join("\n"),
            String::new(),
        ];
        for text in wrong {
            assert!(from_text(&text).is_none(), "{text}");
        }
    }
}

//! Secret keys in files: the parameter set and the seed that a key follows from, in words.

use std::{os::unix::fs::PermissionsExt as _, path::Path};

use asterism_fhe::{
    keys::SecretKey,
    params::{self, ParamsId},
};
use asterism_store::files::write_atomic;

use super::read;
use crate::error::CliError;

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
    let bytes = read(file)?;
    str::from_utf8(&bytes).ok().and_then(from_text).ok_or_else(|| {
        CliError::Usage(format!(
            "{}: this is not a secret key of this version",
            file.display()
        ))
    })
}

fn to_text(key: &SecretKey) -> String {
    let (params, seed) = (key.params_id().name(), hex::encode(key.seed()));
    format!("{FIRST_LINE}\nparams {params}\nseed {seed}\n")
}

fn from_text(text: &str) -> Option<SecretKey> {
    let mut lines = text.lines();
    if lines.next()? != FIRST_LINE {
        return None;
    }
    let id = named(lines.next()?.strip_prefix("params ")?)?;
    let mut seed = [0; 16];
    hex::decode_to_slice(lines.next()?.strip_prefix("seed ")?, &mut seed).ok()?;
    match lines.next() {
        None => Some(SecretKey::from_seed(id, seed)),
        Some(_) => None,
    }
}

fn named(name: &str) -> Option<ParamsId> {
    params::ALL
        .iter()
        .map(|params| params.id)
        .find(|id| id.name() == name)
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
            format!("{text}more\n"),
            text.lines().take(2).collect(),
            String::new(),
        ];
        for text in wrong {
            assert!(from_text(&text).is_none(), "{text}");
        }
    }
}

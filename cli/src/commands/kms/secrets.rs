//! What opens a seal, from files or asked for: never from the command line, where others could read it.

use std::path::Path;

use asterism_client::{
    UnsealSecret,
    proto::kms::{SealKind, SealStatus},
};
use asterism_kms::root::MIN_PASSPHRASE_BYTES;
use asterism_store::files;
use zeroize::Zeroizing;

use crate::{args::SecretArgs, commands::login::ask, error::CliError};

/// What the files hold that were named.
pub(super) fn read(args: &SecretArgs) -> Result<Vec<UnsealSecret>, CliError> {
    let shares = args
        .share_file
        .iter()
        .map(|file| Ok(UnsealSecret::Share(text(file)?)));
    let passphrase = args
        .passphrase_file
        .iter()
        .map(|file| Ok(UnsealSecret::Passphrase(text(file)?)));
    shares.chain(passphrase).collect()
}

/// What opens the seal as it is: what was named, or asked for; nothing where kms opens it by itself.
pub(super) fn current(args: &SecretArgs, status: &SealStatus) -> Result<Vec<UnsealSecret>, CliError> {
    let given = read(args)?;
    if !given.is_empty() || status.automatic {
        return Ok(given);
    }
    match status.kind() {
        SealKind::Passphrase => Ok(vec![ask_passphrase()?]),
        SealKind::Shares => (1..=status.threshold)
            .map(|n| {
                let question = format!("share {n} of {}: ", status.threshold);
                Ok(UnsealSecret::Share(ask_share(&question)?))
            })
            .collect(),
        _ => Ok(given),
    }
}

/// Asks for the passphrase of the seal.
pub(super) fn ask_passphrase() -> Result<UnsealSecret, CliError> {
    let text = ask("passphrase of the seal: ", "--passphrase-file")?;
    Ok(UnsealSecret::Passphrase(trimmed(&text)))
}

/// Asks for a share.
pub(super) fn ask_share(question: &str) -> Result<Zeroizing<String>, CliError> {
    Ok(Zeroizing::new(ask(question, "--share-file")?.trim().to_owned()))
}

/// A passphrase for a new seal: from the file, or asked for twice.
pub(super) fn new_passphrase(file: Option<&Path>, option: &str) -> Result<Zeroizing<String>, CliError> {
    let passphrase = match file {
        Some(file) => text(file)?,
        None => {
            let first = trimmed(&ask("new passphrase: ", option)?);
            if trimmed(&ask("again: ", option)?) != first {
                return Err(CliError::Usage("the two are not the same".to_owned()));
            }
            first
        }
    };
    if passphrase.len() < MIN_PASSPHRASE_BYTES {
        return Err(CliError::Usage(format!(
            "the passphrase has {} bytes and needs at least {MIN_PASSPHRASE_BYTES}",
            passphrase.len()
        )));
    }
    Ok(passphrase)
}

/// The text in a private file, without white space at its end.
pub(super) fn text(file: &Path) -> Result<Zeroizing<String>, CliError> {
    let problem = |problem: &dyn std::fmt::Display| CliError::Usage(format!("{}: {problem}", file.display()));
    let bytes = files::read_private(file)
        .map(Zeroizing::new)
        .map_err(|error| problem(&error))?;
    let text = str::from_utf8(&bytes).map_err(|_| problem(&"is not text in UTF-8"))?;
    match trimmed(text) {
        empty if empty.is_empty() => Err(problem(&"is empty")),
        text => Ok(text),
    }
}

/// As kms reads its passphrase file: an editor's newline is none of the secret.
fn trimmed(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.trim_ascii_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_file_is_private_text_and_loses_its_newline() {
        let dir = tempfile::tempdir().expect("directory");
        let file = dir.path().join("passphrase");
        files::write_atomic(&file, b" correct horse battery\r\n", 0o600).expect("written");
        assert_eq!(text(&file).expect("read").as_str(), " correct horse battery");
        for (bytes, mode, says) in [
            (b"correct horse battery".as_slice(), 0o644, "chmod 600"),
            (b"\n", 0o600, "empty"),
            (b"\xff\xff\xff", 0o600, "UTF-8"),
        ] {
            files::write_atomic(&file, bytes, mode).expect("written");
            let refused = text(&file).expect_err("refused");
            assert_eq!(refused.exit_code(), 2);
            assert!(refused.to_string().contains(says), "{refused}");
        }
    }

    #[test]
    fn what_kms_opens_by_itself_needs_no_secret_and_a_file_that_was_named_is_taken() {
        let dir = tempfile::tempdir().expect("directory");
        let file = dir.path().join("share");
        files::write_atomic(&file, b"asxs1abc\n", 0o600).expect("written");
        let automatic = SealStatus {
            automatic: true,
            kind: SealKind::Passphrase.into(),
            ..SealStatus::default()
        };
        let secrets = current(&SecretArgs::default(), &automatic).expect("none");
        assert!(secrets.is_empty());
        let named = SecretArgs {
            share_file: vec![file],
            passphrase_file: None,
        };
        let secrets = current(&named, &automatic).expect("read");
        assert!(matches!(&secrets[..], [UnsealSecret::Share(text)] if text.as_str() == "asxs1abc"));
    }
}

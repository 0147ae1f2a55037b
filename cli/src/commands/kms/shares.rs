//! A key in shares: made here, handed out, and proved to have been kept before a seal depends on them.

use std::{
    fs::OpenOptions,
    io::{IsTerminal as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use asterism_crypto::{
    Digest, SecretKey,
    shares::{self, Share},
};
use asterism_store::files;

use super::secrets;
use crate::{
    args::{SealArg, SplitArgs},
    commands::login::ask,
    error::CliError,
    output::{self, Output},
};

/// Clears the screen and what was scrolled off it.
const CLEAR: &str = "\x1b[2J\x1b[3J\x1b[H";

/// A fresh key whose shares are with those who keep them.
pub(super) struct Split {
    /// What was split.
    pub(super) key: SecretKey,
    /// How many shares give it.
    pub(super) threshold: u8,
    /// All of them.
    pub(super) shares: Vec<Share>,
    /// Where they were written to, unless they were shown.
    pub(super) files: ShareFiles,
}

impl Split {
    /// Makes and splits a key, hands the shares out, and takes as many as are needed back.
    pub(super) fn make(args: &SplitArgs, output: Output) -> Result<Self, CliError> {
        let (Some(number), Some(threshold)) = (args.shares, args.threshold) else {
            return Err(CliError::Usage(
                "say into how many shares, and how many open the seal: --shares 5 --threshold 3".to_owned(),
            ));
        };
        let failed = |error| CliError::Other(format!("the key could not be split: {error}"));
        let key = SecretKey::generate().map_err(failed)?;
        let shares = shares::split(&key, threshold, number).map_err(failed)?;
        let (back, files) = match &args.shares_dir {
            Some(dir) => {
                let files = ShareFiles::write(dir, &shares)?;
                (files.read()?, files)
            }
            None => (
                show_and_ask_back(&shares, threshold, output)?,
                ShareFiles::default(),
            ),
        };
        let again = shares::combine(back.iter().take(usize::from(threshold)));
        if !again.is_ok_and(|again| again.expose() == key.expose()) {
            return Err(CliError::NotVerified(
                "the shares that came back do not give the key that was split".to_owned(),
            ));
        }
        Ok(Self {
            key,
            threshold,
            shares,
            files,
        })
    }

    /// What the seal remembers of the shares.
    pub(super) fn digests(&self) -> Vec<Digest> {
        self.shares.iter().map(Share::digest).collect()
    }
}

/// Whether the options about shares go with a seal.
pub(super) fn check(seal: SealArg, args: &SplitArgs) -> Result<(), CliError> {
    let problem = match (seal, args.shares, args.threshold) {
        (SealArg::Shares, None, _) => "a seal of shares takes --shares and --threshold",
        (SealArg::Shares, Some(shares), Some(threshold)) if threshold > shares => {
            "there are fewer --shares than the --threshold"
        }
        (SealArg::Shares, ..) | (_, None, _) => return Ok(()),
        _ => "--shares goes with a seal of shares",
    };
    Err(CliError::Usage(problem.to_owned()))
}

/// Files of shares, for as long as it is not known whether a seal depends on them.
#[derive(Default)]
#[must_use = "they are withdrawn unless the seal was made"]
pub(super) struct ShareFiles(Vec<PathBuf>);

impl ShareFiles {
    /// One file of mode 0600 for each; never over a file that is there.
    fn write(dir: &Path, shares: &[Share]) -> Result<Self, CliError> {
        files::create_private_dir(dir)
            .map_err(|error| CliError::Other(format!("{}: {error}", dir.display())))?;
        let mut written = Self::default();
        for share in shares {
            let path = dir.join(format!(
                "share-{}-of-{}-{}",
                share.index(),
                shares.len(),
                share.set()
            ));
            if let Err(error) = write(&path, share) {
                let failure = CliError::file(&path, error);
                written.withdraw()?;
                return Err(failure);
            }
            written.0.push(path);
        }
        files::sync_file_system(dir).map_err(|error| CliError::Other(error.to_string()))?;
        Ok(written)
    }

    fn read(&self) -> Result<Vec<Share>, CliError> {
        let share = |path: &PathBuf| {
            secrets::text(path)?
                .parse()
                .map_err(|error| CliError::NotVerified(format!("{}: {error}", path.display())))
        };
        self.0.iter().map(share).collect()
    }

    /// Where they are.
    pub(super) fn paths(&self) -> &[PathBuf] {
        &self.0
    }

    /// Shreds what opens nothing, because the seal was not made.
    pub(super) fn withdraw(self) -> Result<(), CliError> {
        for path in &self.0 {
            files::shred(path).map_err(|error| CliError::Other(format!("{}: {error}", path.display())))?;
        }
        Ok(())
    }
}

fn write(path: &Path, share: &Share) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(share.to_text().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

/// Shows each share once to its holder, and asks for as many again as open the seal.
fn show_and_ask_back(shares: &[Share], threshold: u8, output: Output) -> Result<Vec<Share>, CliError> {
    let seen = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if output.is_json() || !seen {
        return Err(CliError::Usage(
            "there is no terminal to show shares on: name a directory for their files, --shares-dir"
                .to_owned(),
        ));
    }
    for share in shares {
        output::print(&format!(
            "share {} of {}, for its holder alone:\n",
            share.index(),
            shares.len()
        ));
        output::print(&share.to_text());
        ask("\nEnter, once it is kept; it is not shown again", "--shares-dir")?;
        output::print(CLEAR);
    }
    output::print(&format!(
        "{threshold} of them again, whichever, to see that they were kept well:"
    ));
    let mut back: Vec<Share> = Vec::new();
    while back.len() < usize::from(threshold) {
        let text = secrets::ask_share(&format!("share ({} of {threshold}): ", back.len() + 1))?;
        match text.parse::<Share>() {
            Err(error) => output::complain(&error.to_string()),
            Ok(share) if !shares.iter().any(|kept| kept.digest() == share.digest()) => {
                output::complain("this is none of the shares that were shown");
            }
            Ok(share) if back.iter().any(|before| before.index() == share.index()) => {
                output::complain("this one has been given; give another");
            }
            Ok(share) => back.push(share),
        }
    }
    Ok(back)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn args(dir: &Path) -> SplitArgs {
        SplitArgs {
            shares: Some(5),
            threshold: Some(3),
            shares_dir: Some(dir.to_owned()),
        }
    }

    #[test]
    fn shares_are_written_apart_for_their_owner_only_and_three_of_them_give_the_key() {
        let dir = tempfile::tempdir().expect("directory");
        let dir = dir.path().join("shares");
        let split = Split::make(&args(&dir), Output::new(true)).expect("split");
        assert_eq!(split.files.paths().len(), 5);
        let read: Vec<Share> = split.files.read().expect("read");
        for (path, digest) in split.files.paths().iter().zip(split.digests()) {
            let mode = std::fs::metadata(path).expect("file").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let text = secrets::text(path).expect("text");
            assert_eq!(Digest::of(text.as_bytes()), digest);
        }
        let key = shares::combine(&read[2..]).expect("combined");
        assert_eq!(key.expose(), split.key.expose());
        split.files.withdraw().expect("shredded");
        assert_eq!(std::fs::read_dir(&dir).expect("there").count(), 0);
    }

    #[test]
    fn no_share_is_made_where_it_can_neither_be_shown_nor_written() {
        let nowhere = SplitArgs {
            shares_dir: None,
            ..args(Path::new("unused"))
        };
        let refused = Split::make(&nowhere, Output::new(true)).err().expect("refused");
        assert_eq!(refused.exit_code(), 2);
        assert!(refused.to_string().contains("--shares-dir"), "{refused}");
    }

    #[test]
    fn options_of_shares_go_with_shares_only() {
        let some = args(Path::new("unused"));
        let none = SplitArgs::default();
        assert!(check(SealArg::Shares, &some).is_ok());
        assert!(check(SealArg::KeyFile, &none).is_ok());
        for (seal, args) in [
            (SealArg::Shares, none),
            (SealArg::Token, some.clone()),
            (
                SealArg::Shares,
                SplitArgs {
                    threshold: Some(6),
                    ..some
                },
            ),
        ] {
            assert_eq!(check(seal, &args).expect_err("refused").exit_code(), 2);
        }
    }
}

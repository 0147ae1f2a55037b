//! `asterism kms init`

use asterism_chassis::identity::PrincipalId;
use asterism_crypto::SecretBytes;
use asterism_kms::{
    RootKeyConfig,
    founding::{Founding, FoundingError, found},
    root::{NewSeal, RootError, Secret, is_sealed},
};
use asterism_store::files;
use serde_json::json;
use zeroize::Zeroizing;

use super::{
    secrets,
    shares::{self, ShareFiles, Split},
};
use crate::{
    args::{Global, InitArgs, SealArg},
    connect::data_dir,
    error::CliError,
    output::{Output, time},
};

/// Makes a kms from nothing.
pub(super) async fn run(args: InitArgs, global: &Global, output: Output) -> Result<(), CliError> {
    check(&args)?;
    let dir = args
        .data_dir
        .clone()
        .unwrap_or_else(|| data_dir(global).join("kms"));
    let admin: PrincipalId = args
        .admin
        .parse()
        .map_err(|_| CliError::Usage(format!("`{}` is not a principal like user/admin", args.admin)))?;
    if is_sealed(&dir) {
        return Err(refusal(RootError::Occupied(dir.display().to_string()).into()));
    }
    let (seal, opens, files) = seal(&args, output)?;
    let root_key = RootKeyConfig {
        passphrase_file: None,
        pkcs11: args.token.settings(),
    };
    let at = dir.clone();
    let made = tokio::task::spawn_blocking(move || {
        found(Founding {
            data_dir: &at,
            root_key: &root_key,
            seal,
            opens,
            admin: &admin,
            now_ms: asterism_kms::system_clock()(),
        })
    });
    let made = match made.await.map_err(|error| CliError::Other(error.to_string()))? {
        Ok(made) => made,
        Err(error) => {
            if matches!(error, FoundingError::Root(_)) {
                files.withdraw()?;
            }
            return Err(refusal(error));
        }
    };
    let invitation = Zeroizing::new(made.invitation.text);
    if let Some(file) = &args.invitation_out {
        files::write_atomic(file, invitation.as_bytes(), 0o600)
            .map_err(|error| CliError::Other(format!("{}: {error}", file.display())))?;
    }
    let expires = time(Some(&timestamp(made.invitation.expires_ms)));
    let shown = match &args.invitation_out {
        Some(file) => ("invitation file", file.display().to_string()),
        None => ("invitation", invitation.to_string()),
    };
    let mut facts = vec![
        ("seal", name(args.seal).to_owned()),
        ("seal id", made.seal.id.clone()),
        ("data", dir.display().to_string()),
        ("administrator", args.admin.clone()),
        shown,
        ("good until", expires.clone()),
    ];
    facts.extend(
        files
            .paths()
            .iter()
            .map(|file| ("share file", file.display().to_string())),
    );
    let value = json!({
        "kind": name(args.seal), "seal_id": made.seal.id, "threshold": made.seal.threshold, "shares": made.seal.shares,
        "automatic": made.seal.automatic, "data_dir": dir, "share_files": files.paths(),
        "administrator": args.admin, "invitation": args.invitation_out.is_none().then(|| invitation.as_str()),
        "invitation_file": args.invitation_out, "invitation_expires": expires,
    });
    output.facts(&facts, &value);
    output.say(next(args.seal));
    Ok(())
}

fn check(args: &InitArgs) -> Result<(), CliError> {
    shares::check(args.seal, &args.split)?;
    let token = args.token.pkcs11_module.is_some();
    let problem = match args.seal {
        SealArg::Token if !token => "a seal of a token takes --pkcs11-module, --token-label and --pin-file",
        seal if seal != SealArg::Token && token => "--pkcs11-module goes with --seal token",
        seal if seal != SealArg::Passphrase && args.passphrase_file.is_some() => {
            "--passphrase-file goes with --seal passphrase"
        }
        _ => return Ok(()),
    };
    Err(CliError::Usage(problem.to_owned()))
}

/// The seal to make, and what opens it.
fn seal(args: &InitArgs, output: Output) -> Result<(NewSeal, Vec<Secret>, ShareFiles), CliError> {
    Ok(match args.seal {
        SealArg::KeyFile => (NewSeal::KeyFile, vec![], ShareFiles::default()),
        SealArg::Token => (NewSeal::Token, vec![], ShareFiles::default()),
        SealArg::Passphrase => {
            let text = secrets::new_passphrase(args.passphrase_file.as_deref(), "--passphrase-file")?;
            let copy = || SecretBytes::new(text.as_bytes().to_vec());
            let opens = vec![Secret::Passphrase(copy())];
            (NewSeal::Passphrase(copy()), opens, ShareFiles::default())
        }
        SealArg::Shares => {
            let split = Split::make(&args.split, output)?;
            let seal = NewSeal::Shares {
                digests: split.digests(),
                threshold: split.threshold,
                unseal_key: split.key,
            };
            let opens = split.shares.into_iter().take(usize::from(split.threshold));
            (seal, opens.map(Secret::Share).collect(), split.files)
        }
    })
}

fn name(seal: SealArg) -> &'static str {
    match seal {
        SealArg::KeyFile => "key-file",
        SealArg::Passphrase => "passphrase",
        SealArg::Shares => "shares",
        SealArg::Token => "token",
    }
}

fn next(seal: SealArg) -> &'static str {
    match seal {
        SealArg::KeyFile => "next: back root.key up, apart from backups of the data, and start kms",
        SealArg::Passphrase => {
            "next: start kms, and open it with `asterism kms unseal`, or name root_key.passphrase_file in its settings"
        }
        SealArg::Shares => {
            "next: give each share to its holder, start kms, and open it with `asterism kms unseal`"
        }
        SealArg::Token => "next: name the token in the settings of kms, under root_key.pkcs11, and start it",
    }
}

fn timestamp(ms: u64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: i64::try_from(ms / 1000).unwrap_or(i64::MAX),
        nanos: i32::try_from(ms % 1000).unwrap_or(0) * 1_000_000,
    }
}

/// Exit code 2 when something else has to be given.
fn refusal(error: FoundingError) -> CliError {
    match &error {
        FoundingError::Root(RootError::Occupied(_) | RootError::Field { .. } | RootError::Token(_)) => {
            CliError::Usage(error.to_string())
        }
        _ => CliError::Other(error.to_string()),
    }
}

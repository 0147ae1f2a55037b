//! `asterism kms rekey`

use asterism_client::{ClientError, Kms, NewSeal, proto::kms::SealStatus};

use tonic::Code;

use super::{
    secrets,
    shares::{self, ShareFiles, Split},
};
use crate::{
    args::{RekeyArgs, SealArg},
    error::CliError,
    output::Output,
};

/// Has kms put the root key under another seal; gives where the new shares are, too. What opens the old seal is asked for first, then the new one
/// is made.
pub(super) async fn run(
    args: RekeyArgs,
    kms: &Kms,
    output: Output,
) -> Result<(SealStatus, ShareFiles), CliError> {
    shares::check(args.to, &args.split)?;
    if args.new_passphrase_file.is_some() && args.to != SealArg::Passphrase {
        return Err(CliError::Usage(
            "--new-passphrase-file goes with --to passphrase".to_owned(),
        ));
    }
    let status = kms.seal_status().await?;
    if status.sealed {
        return Err(CliError::Other(
            "kms is sealed; unseal it first: `asterism kms unseal`".to_owned(),
        ));
    }
    let current = secrets::current(&args.secrets, &status)?;
    let (new, files) = new_seal(&args, output)?;
    match kms.rekey(&current, &new).await {
        Ok(status) => Ok((status, files)),
        Err(error) => {
            if is_refusal(&error) {
                files.withdraw()?;
            } else {
                output.say(
                    "keep the old secret and the new one until `asterism kms status` tells which seal there is",
                );
            }
            Err(error.into())
        }
    }
}

/// Whether kms changed nothing for certain: otherwise the shares that were just made may be the only ones that there are.
fn is_refusal(error: &ClientError) -> bool {
    matches!(
        error.code(),
        Code::InvalidArgument | Code::FailedPrecondition | Code::PermissionDenied | Code::Unauthenticated
    )
}

fn new_seal(args: &RekeyArgs, output: Output) -> Result<(NewSeal, ShareFiles), CliError> {
    Ok(match args.to {
        SealArg::KeyFile => (NewSeal::KeyFile, ShareFiles::default()),
        SealArg::Token => (NewSeal::Token, ShareFiles::default()),
        SealArg::Passphrase => {
            let file = args.new_passphrase_file.as_deref();
            let passphrase = secrets::new_passphrase(file, "--new-passphrase-file")?;
            (NewSeal::Passphrase(passphrase), ShareFiles::default())
        }
        SealArg::Shares => {
            let split = Split::make(&args.split, output)?;
            let new = NewSeal::Shares {
                share_sha256: split.digests(),
                threshold: u32::from(split.threshold),
                unseal_key: split.key,
            };
            (new, split.files)
        }
    })
}

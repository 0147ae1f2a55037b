//! What leaves the log for those who trust none of its machines: receipts, checkpoints, the log as plain files; and the check of
//! those files, which needs no service.

use std::{
    fs,
    path::{Path, PathBuf},
};

use asterism_audit_verify::VerifyArgs;
use asterism_client::proto::audit::get_inclusion_proof_request::Entry;
use asterism_tlog::{
    Exporter, Receipt, SignedCheckpoint,
    export::{CHECKPOINT, checkpoint_path},
    leaf_hash,
};
use serde_json::json;

use crate::{args::VerifyLogArgs, connect::Services, error::CliError, output::Output};

/// Verifies an exported log. Fails with exit code 1 when anything is not as it was signed.
pub fn offline(args: VerifyLogArgs, output: Output) -> Result<(), CliError> {
    let Some(directory) = args.directory else {
        return Err(CliError::Usage(
            "name the directory of an exported log".to_owned(),
        ));
    };
    let args = VerifyArgs {
        directory,
        keys: args.keys,
        seen: args.seen,
        first: 0,
        witnesses: args.witnesses,
        ignore_unknown_signatures: false,
        ignore_other_files: false,
        json: output.is_json(),
    };
    let check =
        |index, bytes: &[u8]| asterism_audit::log::check_entry(index, bytes).map_err(|e| e.to_string());
    let report = args
        .report(&check)
        .map_err(|error| CliError::Usage(error.to_string()))?;
    let facts = [
        ("verified", if report.ok { "yes" } else { "NO" }.to_owned()),
        ("log", report.origin.clone()),
        ("entries", report.size.to_string()),
        ("root", report.root.clone().unwrap_or_default()),
        ("checkpoints", report.checkpoints.to_string()),
    ];
    output.facts(&facts, &json!(report));
    for problem in &report.problems {
        output.say(&problem.detail);
    }
    match report.problems.first() {
        None if report.ok => Ok(()),
        Some(problem) => Err(CliError::Other(format!(
            "the log does not verify: {}",
            problem.detail
        ))),
        None => Err(CliError::Other("the log does not verify".to_owned())),
    }
}

/// Fetches a receipt, and checks that it leads from the entry to its checkpoint.
pub(super) async fn prove(
    services: &Services,
    entry: &str,
    out: &Path,
    entry_out: Option<&Path>,
    output: Output,
) -> Result<(), CliError> {
    let wanted = entry
        .parse()
        .map_or_else(|_| Entry::EventId(entry.to_owned()), Entry::Index);
    let proved = services.audit.prove(wanted, None).await?;
    let unfit =
        |problem: String| CliError::NotVerified(format!("the receipt of the service is wrong: {problem}"));
    let receipt = Receipt::parse(proved.receipt.as_bytes()).map_err(|error| unfit(error.to_string()))?;
    let said = receipt.checkpoint.checkpoint();
    receipt
        .proof()
        .verify(&leaf_hash(&proved.entry), &said.root)
        .map_err(|error| unfit(error.to_string()))?;
    write(out, proved.receipt.as_bytes())?;
    if let Some(path) = entry_out {
        write(path, &proved.entry)?;
    }
    let value = json!({
        "index": proved.index, "size": said.size, "root_sha256": hex::encode(said.root.as_bytes()),
        "leaf_sha256": hex::encode(&proved.leaf_sha256), "receipt": out,
    });
    let facts = [
        ("index", proved.index.to_string()),
        ("entries", said.size.to_string()),
        ("root", hex::encode(said.root.as_bytes())),
        ("receipt", out.display().to_string()),
    ];
    output.facts(&facts, &value);
    Ok(())
}

pub(super) async fn checkpoint(
    services: &Services,
    out: Option<&Path>,
    key_out: Option<&Path>,
    output: Output,
) -> Result<(), CliError> {
    let signed = services.audit.checkpoint().await?;
    if let Some(path) = out {
        write(path, signed.checkpoint.as_bytes())?;
    }
    if let Some(path) = key_out {
        write(path, (signed.verifier_keys.join("\n") + "\n").as_bytes())?;
    }
    if output.is_json() {
        output.value(&json!({
            "checkpoint": signed.checkpoint, "size": signed.size,
            "root_sha256": hex::encode(&signed.root_sha256), "verifier_keys": signed.verifier_keys,
        }));
    } else {
        output.say(signed.checkpoint.trim_end());
    }
    Ok(())
}

/// Writes the log as it was signed a moment ago; the checkpoint comes last, so that there is none without its log.
pub(super) async fn export(services: &Services, directory: &Path, output: Output) -> Result<(), CliError> {
    empty(directory)?;
    let answer = services.audit.checkpoint().await?;
    let signed = SignedCheckpoint::parse(answer.checkpoint.as_bytes())
        .map_err(|error| CliError::NotVerified(format!("the checkpoint of the service is wrong: {error}")))?;
    let said = signed.checkpoint();
    let mut exporter = Exporter::new(|path: &str, bytes: &[u8]| write(&directory.join(path), bytes));
    let mut next = 0;
    if said.size > 0 {
        let mut stream = services.audit.read_entries(0, said.size).await?;
        let ended =
            |status: tonic::Status| CliError::Other(format!("the export ended: {}", status.message()));
        while let Some(message) = stream.message().await.map_err(ended)? {
            if message.first_index != next {
                return Err(CliError::NotVerified(format!("entry {next} did not come")));
            }
            next += message.entries.len() as u64;
            for entry in &message.entries {
                exporter
                    .push(entry)
                    .map_err(|error| CliError::Other(error.to_string()))?;
            }
        }
    }
    let tree = exporter
        .finish()
        .map_err(|error| CliError::Other(error.to_string()))?;
    if (tree.size(), tree.root()) != (said.size, said.root) {
        let text = "the entries that came are not those that the checkpoint was signed for";
        return Err(CliError::NotVerified(text.to_owned()));
    }
    write(
        &directory.join(checkpoint_path(said.size)),
        answer.checkpoint.as_bytes(),
    )?;
    write(&directory.join(CHECKPOINT), answer.checkpoint.as_bytes())?;
    let value = json!({
        "origin": said.origin, "size": said.size, "root_sha256": hex::encode(said.root.as_bytes()),
        "verifier_keys": answer.verifier_keys,
    });
    let facts = [
        ("log", said.origin.clone()),
        ("entries", said.size.to_string()),
        ("root", hex::encode(said.root.as_bytes())),
        ("directory", directory.display().to_string()),
    ];
    output.facts(&facts, &value);
    Ok(())
}

/// Old files among the new ones would be strays, or wrong.
fn empty(directory: &Path) -> Result<(), CliError> {
    match fs::read_dir(directory) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(CliError::Usage(format!(
                "{} is not empty; name a directory that is empty or not there yet",
                directory.display()
            ))),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(CliError::file(directory, error)),
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let parent = path.parent().map_or_else(PathBuf::new, Path::to_owned);
    if !parent.as_os_str().is_empty() {
        fs::create_dir_all(&parent).map_err(|error| CliError::file(&parent, error))?;
    }
    fs::write(path, bytes).map_err(|error| CliError::file(path, error))
}

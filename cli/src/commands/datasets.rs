//! `asterism datasets`

use std::{io::Write as _, path::Path};

use asterism_client::{
    UploadSource,
    proto::ingest::{ColumnKind, Dataset, VerifyDatasetResponse},
};
use serde_json::{Value, json};
use tokio::io::AsyncRead;

use crate::{
    args::DatasetsCommand,
    connect::Services,
    error::CliError,
    output::{Output, bytes, time},
};

/// The kms key that ingest signs manifests with.
pub const DATASET_SIGNER: &str = "manifest-signer";

/// Runs a `datasets` command.
pub async fn run(command: DatasetsCommand, services: &Services, output: Output) -> Result<(), CliError> {
    let ingest = &services.ingest;
    match command {
        DatasetsCommand::Upload {
            file,
            name,
            request_id,
        } => {
            let dataset = upload(services, &file, name, request_id, output).await?;
            show(&dataset, output);
        }
        DatasetsCommand::List => {
            let (mut rows, mut token) = (Vec::new(), String::new());
            loop {
                let (page, next) = ingest.list(1000, &token).await?;
                rows.extend(page.iter().map(row));
                if next.is_empty() {
                    break;
                }
                token = next;
            }
            output.rows(["dataset", "name", "owner", "rows", "size", "created"], &rows);
        }
        DatasetsCommand::Show { name } => show(&ingest.get(&name).await?, output),
        DatasetsCommand::Verify { name } => {
            let report = ingest.verify(&name).await?;
            show_report(&report, output);
            if !report.verified {
                return Err(CliError::NotVerified(format!(
                    "{name} does not verify: {}",
                    first_problem(&report)
                )));
            }
        }
        DatasetsCommand::Manifest { name } => {
            let signed = ingest.manifest(&name).await?;
            let manifest: Value = serde_json::from_slice(&signed.payload)
                .map_err(|_| CliError::NotVerified("the manifest is not JSON".into()))?;
            output.value(&json!({
                "domain": signed.domain, "key": signed.key, "key_version": signed.key_version,
                "signature": hex::encode(&signed.signature), "manifest": manifest,
            }));
        }
        DatasetsCommand::Read { name, offset, limit } => read(services, &name, offset, limit, output).await?,
        DatasetsCommand::Download { name, output: path } => download(services, &name, &path, output).await?,
        DatasetsCommand::Delete { name } => {
            ingest.delete(&name).await?;
            output.facts(&[("deleted", name.clone())], &json!({ "deleted": name }));
        }
    }
    Ok(())
}

/// Uploads a file, or standard input for `-`.
pub async fn upload(
    services: &Services,
    file: &Path,
    name: Option<String>,
    request_id: Option<String>,
    output: Output,
) -> Result<Dataset, CliError> {
    let (mut reader, size): (Box<dyn AsyncRead + Send + Unpin>, u64) = if file == Path::new("-") {
        (Box::new(tokio::io::stdin()), 0)
    } else {
        let opened = tokio::fs::File::open(file)
            .await
            .map_err(|error| CliError::file(file, error))?;
        let size = opened
            .metadata()
            .await
            .map_err(|error| CliError::file(file, error))?
            .len();
        (Box::new(opened), size)
    };
    let display_name = name.unwrap_or_else(|| {
        file.file_name()
            .map_or_else(|| "upload".to_owned(), |name| name.to_string_lossy().into_owned())
    });
    let request_id = request_id.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    let bar = output.progress(size, "upload", true);
    let source = UploadSource {
        display_name: &display_name,
        request_id: &request_id,
        with_sha256: false,
        reader: &mut *reader,
    };
    let dataset = services
        .ingest
        .upload(source, |progress| bar.set_position(progress.sent))
        .await;
    bar.finish_and_clear();
    Ok(dataset?)
}

/// The first check that failed, in words.
pub fn first_problem(report: &VerifyDatasetResponse) -> String {
    report.checks.iter().find(|check| !check.ok).map_or_else(
        || "no check names a reason".to_owned(),
        |check| format!("{}: {}", check.name, check.detail),
    )
}

async fn read(
    services: &Services,
    name: &str,
    offset: u64,
    limit: u64,
    output: Output,
) -> Result<(), CliError> {
    let mut stream = services.ingest.read_rows(name, offset, limit).await?;
    let mut columns = Vec::new();
    let next = |status: tonic::Status| CliError::Other(status.message().to_owned());
    while let Some(message) = stream.message().await.map_err(next)? {
        if !message.columns.is_empty() {
            columns = message.columns;
            output.say(&csv_line(&columns));
        }
        for row in message.rows {
            if output.is_json() {
                let fields = columns
                    .iter()
                    .cloned()
                    .zip(row.cells.into_iter().map(Value::String));
                output.value(&fields.collect::<serde_json::Map<_, _>>());
            } else {
                output.say(&csv_line(&row.cells));
            }
        }
    }
    Ok(())
}

async fn download(services: &Services, name: &str, path: &Path, output: Output) -> Result<(), CliError> {
    let parent = path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    // Nothing appears under the asked name before the whole of it is verified.
    let mut staged =
        tempfile::NamedTempFile::new_in(parent).map_err(|error| CliError::file(parent, error))?;
    let opened = services
        .ingest
        .open_dataset(&services.kms, name, DATASET_SIGNER, |chunk| {
            staged.write_all(chunk.expose()).map_err(|source| {
                let path = path.display().to_string();
                asterism_client::ClientError::Io { path, source }
            })
        })
        .await;
    let verified = opened?;
    staged
        .persist(path)
        .map_err(|error| CliError::file(path, error.error))?;
    let facts = [
        ("written", path.display().to_string()),
        ("size", bytes(verified.manifest.bytes)),
    ];
    let value = json!({
        "path": path.display().to_string(), "bytes": verified.manifest.bytes,
        "manifest_sha256": verified.sha256.to_string(),
    });
    output.facts(&facts, &value);
    Ok(())
}

fn row(dataset: &Dataset) -> ([String; 6], Value) {
    let created = time(dataset.create_time.as_ref());
    let cells = [
        dataset.name.clone(),
        dataset.display_name.clone(),
        dataset.owner.clone(),
        dataset.rows.to_string(),
        bytes(dataset.bytes),
        created,
    ];
    (cells, to_json(dataset))
}

fn to_json(dataset: &Dataset) -> Value {
    json!({
        "name": dataset.name, "display_name": dataset.display_name, "owner": dataset.owner,
        "rows": dataset.rows, "bytes": dataset.bytes, "created": time(dataset.create_time.as_ref()),
        "manifest_sha256": hex::encode(&dataset.manifest_sha256),
        "columns": dataset.columns.iter().map(|c| json!({
            "name": c.name, "kind": kind(c.kind()), "missing": c.missing, "distinct": c.distinct,
            "distinct_exact": c.distinct_exact, "min": c.min, "max": c.max, "mean": c.mean,
        })).collect::<Vec<_>>(),
    })
}

fn show(dataset: &Dataset, output: Output) {
    let facts = [
        ("dataset", dataset.name.clone()),
        ("name", dataset.display_name.clone()),
        ("owner", dataset.owner.clone()),
        ("rows", dataset.rows.to_string()),
        ("size", bytes(dataset.bytes)),
        ("created", time(dataset.create_time.as_ref())),
        (
            "manifest",
            format!("sha256:{}", hex::encode(&dataset.manifest_sha256)),
        ),
    ];
    output.facts(&facts, &to_json(dataset));
    if output.is_json() || dataset.columns.is_empty() {
        return;
    }
    let number = |value: Option<f64>| value.map_or_else(String::new, |v| format!("{v:.6}"));
    let rows: Vec<_> = dataset
        .columns
        .iter()
        .map(|c| {
            let distinct = if c.distinct_exact {
                c.distinct.to_string()
            } else {
                format!("~{}", c.distinct)
            };
            let cells = [
                c.name.clone(),
                kind(c.kind()).to_owned(),
                c.missing.to_string(),
                distinct,
                number(c.min),
                number(c.max),
                number(c.mean),
            ];
            (cells, Value::Null)
        })
        .collect();
    output.rows(
        ["column", "kind", "missing", "distinct", "min", "max", "mean"],
        &rows,
    );
}

fn show_report(report: &VerifyDatasetResponse, output: Output) {
    if output.is_json() {
        output.value(&json!({
            "verified": report.verified, "chunks": report.chunks,
            "first_damaged_chunk": report.first_damaged_chunk,
            "checks": report.checks.iter().map(|c| json!({
                "name": c.name, "ok": c.ok, "detail": c.detail,
            })).collect::<Vec<_>>(),
        }));
        return;
    }
    let rows: Vec<_> = report
        .checks
        .iter()
        .map(|check| {
            let sign = if check.ok { "ok" } else { "FAILED" };
            (
                [check.name.clone(), sign.to_owned(), check.detail.clone()],
                Value::Null,
            )
        })
        .collect();
    output.rows(["check", "result", "detail"], &rows);
}

fn kind(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Integer => "integer",
        ColumnKind::Float => "float",
        ColumnKind::Boolean => "boolean",
        ColumnKind::Text => "text",
        ColumnKind::Empty => "empty",
        ColumnKind::Unspecified => "",
    }
}

fn csv_line(cells: &[String]) -> String {
    let quoted = |cell: &String| {
        if cell.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", cell.replace('"', "\"\""))
        } else {
            cell.clone()
        }
    };
    cells.iter().map(quoted).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_that_need_quotes_get_them() {
        let cells = ["a", "b,c", "d\"e", "f\ng"].map(str::to_owned);
        assert_eq!(csv_line(&cells), "a,\"b,c\",\"d\"\"e\",\"f\ng\"");
    }
}

//! Between messages and domain types. Untrusted input becomes a precise type here, once.

use asterism_client::manifest::ManifestColumn;
use asterism_crypto::{Digest, Signed};
use asterism_proto::ingest as pb;
use jiff::Timestamp;

use crate::{
    datasets::{DatasetId, Described, Report, RowBatch, StoredDataset},
    error::IngestError,
    uploads::{Begun, MAX_PUT_BYTES, Progress},
};

const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 1000;

/// A name for people: 1–128 printable characters.
pub(crate) fn display_name(text: &str) -> Result<&str, IngestError> {
    if (1..=128).contains(&text.chars().count()) && !text.chars().any(char::is_control) {
        Ok(text)
    } else {
        Err(IngestError::field(
            "display_name",
            "must be 1 to 128 printable characters",
        ))
    }
}

/// Empty, or at most 64 visible ASCII characters.
pub(crate) fn request_id(text: &str) -> Result<&str, IngestError> {
    if text.len() <= 64 && text.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(text)
    } else {
        Err(IngestError::field(
            "request_id",
            "must be at most 64 visible ASCII characters",
        ))
    }
}

/// A digest that may be left out.
pub(crate) fn sha256(bytes: &[u8]) -> Result<Option<Digest>, IngestError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let bytes = bytes
        .try_into()
        .map_err(|_| IngestError::field("sha256", "must be 32 bytes, or none"))?;
    Ok(Some(Digest::from_bytes(bytes)))
}

pub(crate) fn page_size(size: i32) -> Result<usize, IngestError> {
    match usize::try_from(size) {
        Ok(0) => Ok(DEFAULT_PAGE),
        Ok(size) => Ok(size.min(MAX_PAGE)),
        Err(_) => Err(IngestError::field("page_size", "must be 0 to 1000")),
    }
}

/// The token of a page is the id of the last dataset before it.
pub(crate) fn page_token(token: &str) -> Result<Option<DatasetId>, IngestError> {
    if token.is_empty() {
        return Ok(None);
    }
    let id = DatasetId::parse(token);
    id.map(Some).ok_or(IngestError::field(
        "page_token",
        "must be the next_page_token of an earlier answer",
    ))
}

pub(crate) fn begun(begun: Begun) -> pb::BeginUploadResponse {
    let max_chunk_bytes = MAX_PUT_BYTES as u32;
    match begun {
        Begun::Upload { id, offset } => pb::BeginUploadResponse {
            upload_id: id.to_string(),
            offset,
            max_chunk_bytes,
            dataset: String::new(),
        },
        Begun::Dataset(id) => pb::BeginUploadResponse {
            max_chunk_bytes,
            dataset: id.name(),
            ..Default::default()
        },
    }
}

pub(crate) fn progress(progress: Progress) -> pb::GetUploadResponse {
    pb::GetUploadResponse {
        offset: progress.offset,
        rows: progress.rows,
    }
}

pub(crate) fn described(described: Described) -> pb::Dataset {
    let columns = described.columns.into_iter().map(column).collect();
    pb::Dataset {
        columns,
        ..dataset(described.id, described.record)
    }
}

/// Without columns.
pub(crate) fn dataset(id: DatasetId, record: StoredDataset) -> pb::Dataset {
    pb::Dataset {
        name: id.name(),
        display_name: record.display_name,
        owner: record.owner,
        rows: record.rows,
        bytes: record.bytes,
        columns: vec![],
        create_time: Some(timestamp(record.created_at)),
        manifest_sha256: record.manifest_sha256.as_bytes().to_vec().into(),
    }
}

pub(crate) fn signed(signed: Signed) -> pb::SignedManifest {
    pb::SignedManifest {
        domain: signed.domain,
        payload: signed.payload.into(),
        key: format!("keys/{}", signed.key),
        key_version: signed.key_version,
        signature: signed.signature.into(),
    }
}

pub(crate) fn report(report: Report) -> pb::VerifyDatasetResponse {
    pb::VerifyDatasetResponse {
        verified: report.verified(),
        checks: report
            .checks
            .into_iter()
            .map(|check| pb::Check {
                name: check.name.to_owned(),
                ok: check.ok,
                detail: check.detail,
            })
            .collect(),
        chunks: report.chunks,
        first_damaged_chunk: report.first_damaged_chunk,
    }
}

pub(crate) fn rows(batch: RowBatch) -> pb::ReadRowsResponse {
    let rows = batch.rows.into_iter().map(|cells| pb::Row { cells }).collect();
    pb::ReadRowsResponse {
        columns: batch.columns,
        rows,
    }
}

fn column(column: ManifestColumn) -> pb::Column {
    pb::Column {
        kind: kind(&column.kind).into(),
        name: column.name,
        missing: column.missing,
        distinct: column.distinct,
        distinct_exact: column.distinct_exact,
        min: column.min,
        max: column.max,
        mean: column.mean,
    }
}

fn kind(name: &str) -> pb::ColumnKind {
    match name {
        "integer" => pb::ColumnKind::Integer,
        "float" => pb::ColumnKind::Float,
        "boolean" => pb::ColumnKind::Boolean,
        "text" => pb::ColumnKind::Text,
        "empty" => pb::ColumnKind::Empty,
        _ => pb::ColumnKind::Unspecified,
    }
}

fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.as_second(),
        nanos: time.subsec_nanosecond(),
    }
}

#[cfg(test)]
mod tests {
    use asterism_learn::profile::ColumnKind;

    use super::*;

    #[test]
    fn every_kind_of_column_has_its_number_on_the_wire() {
        for known in [
            ColumnKind::Integer,
            ColumnKind::Float,
            ColumnKind::Boolean,
            ColumnKind::Text,
            ColumnKind::Empty,
        ] {
            assert_ne!(
                kind(known.name()),
                pb::ColumnKind::Unspecified,
                "{}",
                known.name()
            );
        }
    }

    #[test]
    fn fields_are_checked_at_the_door() {
        assert!(display_name("Brustkrebs, 569 Zeilen").is_ok());
        for bad in [String::new(), "a\nb".to_owned(), "x".repeat(129)] {
            assert!(display_name(&bad).is_err(), "{bad:?}");
        }
        assert!(request_id("").is_ok());
        for bad in ["a b".to_owned(), "é".to_owned(), "x".repeat(65)] {
            assert!(request_id(&bad).is_err(), "{bad:?}");
        }
        assert_eq!(sha256(&[]).expect("none"), None);
        assert!(sha256(&[0; 31]).is_err());
        assert!(sha256(&[0; 32]).expect("a digest").is_some());
        assert_eq!(page_size(0).expect("default"), DEFAULT_PAGE);
        assert_eq!(page_size(5000).expect("capped"), MAX_PAGE);
        assert!(page_size(-1).is_err());
        assert!(page_token("datasets/1").is_err());
    }
}

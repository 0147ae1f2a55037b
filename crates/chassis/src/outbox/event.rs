//! What a service reports of an operation.

use std::{borrow::Cow, time::SystemTime};

use asterism_crypto::Digest;
use asterism_proto::audit as pb;

/// Longest text of a field; longer ones are cut, so that an event always fits in a record.
const MAX_FIELD_BYTES: usize = 256;

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It worked.
    Succeeded,
    /// Identity or policy refused it.
    Denied,
    /// Anything else.
    Failed,
}

/// What a service reports of an operation. Never holds plaintext, key material or tokens.
#[derive(Clone, Debug)]
pub struct AuditEvent {
    /// When it ended.
    pub occurred_at: SystemTime,
    /// Who asked; empty when unauthenticated.
    pub principal: String,
    /// For whom; empty when for itself.
    pub on_behalf_of: String,
    /// `kms.Encrypt`, …
    pub operation: &'static str,
    /// `keys/…`, `datasets/…`, `models/…`; empty when there is none.
    pub resource: String,
    /// 0 when there is none.
    pub key_version: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it was refused or failed; on success empty, or a remark such as `KEY_COMPROMISED`; for a batch also how many items succeeded
    /// and failed.
    pub reason: Cow<'static, str>,
    /// Of the request.
    pub request_id: String,
    /// W3C trace id.
    pub trace_id: String,
    /// Of the access token that proved who asked; empty for none.
    pub token_id: String,
    /// Address that the call came from; empty for none.
    pub network: String,
    /// SHA-256 of what went in.
    pub input: Option<Digest>,
    /// SHA-256 of what came out.
    pub output: Option<Digest>,
}

impl AuditEvent {
    /// Of what nobody asked for: that `operation` worked on `resource` just now, and nothing else.
    pub fn unasked(operation: &'static str, resource: String) -> Self {
        Self {
            occurred_at: SystemTime::now(),
            principal: String::new(),
            on_behalf_of: String::new(),
            operation,
            resource,
            key_version: 0,
            outcome: Outcome::Succeeded,
            reason: "".into(),
            request_id: String::new(),
            trace_id: String::new(),
            token_id: String::new(),
            network: String::new(),
            input: None,
            output: None,
        }
    }

    /// The stored and forwarded form, with a fresh event id and yet without its place in the sequence.
    pub(super) fn into_wire(self, source: &'static str) -> pb::Event {
        let digest = |digest: Option<Digest>| digest.map_or_else(Vec::new, |d| d.as_bytes().to_vec());
        pb::Event {
            event_id: uuid::Uuid::now_v7().to_string(),
            source: source.to_owned(),
            source_sequence: 0,
            occurred_at: Some(self.occurred_at.into()),
            principal: capped(self.principal),
            on_behalf_of: capped(self.on_behalf_of),
            operation: self.operation.to_owned(),
            resource: capped(self.resource),
            key_version: self.key_version,
            outcome: match self.outcome {
                Outcome::Succeeded => pb::Outcome::Succeeded,
                Outcome::Denied => pb::Outcome::Denied,
                Outcome::Failed => pb::Outcome::Failed,
            }
            .into(),
            reason: self.reason.into_owned(),
            request_id: capped(self.request_id),
            trace_id: capped(self.trace_id),
            token_id: capped(self.token_id),
            network: capped(self.network),
            input_sha256: digest(self.input),
            output_sha256: digest(self.output),
        }
    }
}

fn capped(mut text: String) -> String {
    let end = (0..=MAX_FIELD_BYTES.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at));
    text.truncate(end.unwrap_or(0));
    text
}

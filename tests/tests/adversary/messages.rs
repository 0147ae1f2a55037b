//! Messages that no client of ours would send.

use prost_types::{
    DescriptorProto, FieldDescriptorProto,
    field_descriptor_proto::{Label, Type},
};

use crate::raw::Contracts;

/// Messages lie in each other at most this deep where they are plausible.
const DEEP: usize = 3;

/// What a plausible message names.
pub struct Names {
    pub key: String,
    pub dataset: String,
    pub model: String,
    pub principal: String,
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn tagged(number: i32, wire: u64, out: &mut Vec<u8>) {
    varint(((number as u64) << 3) | wire, out);
}

/// A field that is text, bytes or a message.
pub fn delimited(number: i32, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    tagged(number, 2, &mut out);
    varint(bytes.len() as u64, &mut out);
    out.extend_from_slice(bytes);
    out
}

fn number(number: i32, value: u64) -> Vec<u8> {
    let mut out = vec![];
    tagged(number, 0, &mut out);
    varint(value, &mut out);
    out
}

fn fixed(number: i32, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    tagged(number, if bytes.len() == 8 { 1 } else { 5 }, &mut out);
    out.extend_from_slice(bytes);
    out
}

/// Bytes that are no message of any kind, or hardly one.
pub fn garbage() -> Vec<Vec<u8>> {
    let mut nested = vec![];
    for _ in 0..150 {
        nested = delimited(1, &nested);
    }
    let mut noise = vec![0_u8; 4096];
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for byte in &mut noise {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state as u8;
    }
    vec![
        vec![],
        vec![0],
        vec![0xFF; 16],
        vec![0x80],
        vec![0x0A],
        // A length that goes on for ever, and one that is longer than anything.
        [vec![0x0A], vec![0xFF; 9], vec![0x7F]].concat(),
        [vec![0x0A], vec![0xFF; 8], vec![0x01]].concat(),
        // Groups: one that is not closed, one that is not open.
        vec![0x0B],
        vec![0x0C],
        vec![0x0B; 2000],
        noise,
        nested,
        delimited(1, &vec![b'a'; 1 << 20]),
        delimited(1, &vec![0xC3; 1 << 10]),
        number(0x1FFF_FFFF, u64::MAX),
        delimited(19_999, b"unknown"),
        // One field again and again.
        delimited(1, b"x").repeat(20_000),
        number(1, u64::MAX).repeat(1000),
    ]
}

/// What a client of ours might send: every field with a value that makes sense.
pub fn plausible(contracts: &Contracts, message: &str, names: &Names) -> Vec<u8> {
    described(contracts, message, names, DEEP)
        .into_iter()
        .flat_map(|(_, bytes)| bytes)
        .collect()
}

/// The plausible message with one field after the other left out, doubled, and set to every extreme of its type.
pub fn extremes(contracts: &Contracts, message: &str, names: &Names) -> Vec<Vec<u8>> {
    let fields = described(contracts, message, names, DEEP);
    let mut messages = vec![];
    for (at, (field, plain)) in fields.iter().enumerate() {
        let mut values = extreme_values(contracts, field);
        values.push(vec![]);
        values.push(plain.repeat(2));
        if field.label() == Label::Repeated {
            values.push(plain.repeat(5000 / plain.len().max(1) + 2));
        }
        for value in values {
            let mut bytes = vec![];
            for (other, (_, plain)) in fields.iter().enumerate() {
                bytes.extend_from_slice(if other == at { &value } else { plain });
            }
            messages.push(bytes);
        }
    }
    messages
}

/// Good messages, each with one field set to an extreme of its type: of what is there twice, the last one counts.
pub fn altered(contracts: &Contracts, message: &str, good: impl Fn() -> Vec<u8>) -> Vec<Vec<u8>> {
    let fields = contracts.message(message).map(|m| m.field.as_slice());
    let extremes = fields
        .unwrap_or_default()
        .iter()
        .flat_map(|field| extreme_values(contracts, field));
    extremes.map(|extreme| [good(), extreme].concat()).collect()
}

fn described<'a>(
    contracts: &'a Contracts,
    message: &str,
    names: &Names,
    deep: usize,
) -> Vec<(&'a FieldDescriptorProto, Vec<u8>)> {
    let Some(message) = contracts.message(message) else {
        return vec![];
    };
    // Of a choice, the first: the others come as extremes.
    let mut chosen = vec![];
    let mut fields = vec![];
    for field in &message.field {
        let first = field.oneof_index.is_none_or(|of| !chosen.contains(&of));
        chosen.extend(field.oneof_index);
        let value = if first {
            sensible(contracts, message, field, names, deep)
        } else {
            vec![]
        };
        fields.push((field, value));
    }
    fields
}

fn sensible(
    contracts: &Contracts,
    within: &DescriptorProto,
    field: &FieldDescriptorProto,
    names: &Names,
    deep: usize,
) -> Vec<u8> {
    let at = field.number();
    match field.r#type() {
        Type::String => delimited(at, text(within.name(), field.name(), names).as_bytes()),
        Type::Bytes => delimited(at, &[7; 32]),
        Type::Message if deep == 0 => vec![],
        Type::Message => {
            let inner: Vec<u8> = described(contracts, field.type_name(), names, deep - 1)
                .into_iter()
                .flat_map(|(_, bytes)| bytes)
                .collect();
            delimited(at, &inner)
        }
        Type::Double | Type::Fixed64 | Type::Sfixed64 => fixed(at, &0.5_f64.to_le_bytes()),
        Type::Float | Type::Fixed32 | Type::Sfixed32 => fixed(at, &0.5_f32.to_le_bytes()),
        // A checksum that is left out is not compared.
        _ if field.name().ends_with("crc32c") => vec![],
        _ => number(at, 1),
    }
}

fn text(message: &str, field: &str, names: &Names) -> String {
    let about = |word: &str| message.contains(word) || field.contains(word);
    match field {
        "request_id" => return crate::support::fresh_id(),
        "page_token" | "etag" | "filter" => return String::new(),
        "principal" | "subject" => return names.principal.clone(),
        "dataset" => return names.dataset.clone(),
        "model" | "model_name" => return names.model.clone(),
        "label" => return "label".into(),
        _ => {}
    }
    if about("Key") || about("Crypt") || about("Mac") || about("Sign") {
        names.key.clone()
    } else if about("Dataset") || about("Upload") || about("Manifest") || about("Rows") {
        names.dataset.clone()
    } else if about("Model") || about("Predict") || about("Evaluat") {
        names.model.clone()
    } else if about("Principal") || about("Invitation") || about("Factor") {
        names.principal.clone()
    } else {
        names.key.clone()
    }
}

fn extreme_values(contracts: &Contracts, field: &FieldDescriptorProto) -> Vec<Vec<u8>> {
    let at = field.number();
    match field.r#type() {
        Type::String => {
            let long = "a".repeat(1 << 16);
            let texts = [
                "",
                "\0",
                "keys/../../../etc/passwd",
                "keys//",
                "datasets/%2e%2e",
                "models/00000000-0000-0000-0000-000000000000",
                "\u{202e}\u{1F9EA}",
                "-1",
                "*",
                long.as_str(),
            ];
            let mut values: Vec<_> = texts.iter().map(|text| delimited(at, text.as_bytes())).collect();
            values.push(delimited(at, b"\xff\xfe"));
            values
        }
        Type::Bytes => [0, 1, 31, 33, 1 << 17]
            .map(|length| delimited(at, &vec![0xFF; length]))
            .into(),
        Type::Message => {
            let mut values = vec![
                delimited(at, b""),
                delimited(at, b"\xff"),
                delimited(at, &number(1, u64::MAX)),
                delimited(at, &[number(1, i64::MAX as u64), number(2, u64::MAX)].concat()),
                delimited(at, &number(1, i64::MIN as u64)),
            ];
            // Messages that lie in themselves, and every extreme one level down.
            for inner in contracts.message(field.type_name()).iter().flat_map(|m| &m.field) {
                if inner.r#type() != Type::Message {
                    for value in extreme_values(contracts, inner) {
                        if value.len() < 4096 {
                            values.push(delimited(at, &value));
                        }
                    }
                }
            }
            values
        }
        Type::Double | Type::Fixed64 | Type::Sfixed64 => {
            [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, -0.0, 5e-324]
                .map(|value| fixed(at, &value.to_le_bytes()))
                .into()
        }
        Type::Float | Type::Fixed32 | Type::Sfixed32 => [f32::NAN, f32::INFINITY, f32::MAX, -0.0]
            .map(|value| fixed(at, &value.to_le_bytes()))
            .into(),
        _ => [0, 2, 3, 1 << 31, u64::from(u32::MAX), i64::MAX as u64, u64::MAX]
            .map(|value| number(at, value))
            .into(),
    }
}

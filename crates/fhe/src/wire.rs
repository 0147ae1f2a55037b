//! What travels, byte by byte (`docs/formats.md`, "Encrypted inference").
//!
//! Every message is a header and bodies of fixed width. Its length follows from the parameter set and the model, both of
//! which the reader knows already; it is compared before anything is allocated. Nothing numeric is taken from a peer.

use sha2::{Digest as _, Sha256};

use crate::{
    FheError,
    bundle::ModelDigest,
    params::{Params, ParamsId, PlanKind},
    seeded::{SEED_BYTES, SeedBytes},
};

const VERSION: u16 = 1;
const QUERY: &[u8; 4] = b"ASTQ";
const KEY: &[u8; 4] = b"ASTK";
const REPLY: &[u8; 4] = b"ASTR";
/// Magic, version and parameter set.
const HEADER: usize = 8;
const DIGEST: usize = 32;
/// Bytes kept of each value of a reply: what is dropped lies far below the flooding.
pub(crate) const REPLY_WIDTH: u8 = 4;

/// SHA-256 of a query: ties its reply to it.
pub type QueryDigest = [u8; 32];

fn header(magic: &[u8; 4], id: ParamsId, out: &mut Vec<u8>) {
    out.extend_from_slice(magic);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&(id as u16).to_le_bytes());
}

/// The parameter set of a message, and what follows its header.
fn read_header<'a>(
    magic: &[u8; 4],
    what: &'static str,
    bytes: &'a [u8],
) -> Result<(ParamsId, &'a [u8]), FheError> {
    let (head, rest) = bytes.split_at_checked(HEADER).ok_or(FheError::NotA(what))?;
    if head[..4] != *magic || head[4..6] != VERSION.to_le_bytes() {
        return Err(FheError::NotA(what));
    }
    let id = ParamsId::from_number(u16::from_le_bytes([head[6], head[7]]))?;
    Ok((id, rest))
}

fn expect_params(expected: ParamsId, found: ParamsId) -> Result<(), FheError> {
    if expected == found {
        Ok(())
    } else {
        Err(FheError::OtherParams {
            expected: expected.name(),
            found: found.name(),
        })
    }
}

fn expect_length(what: &'static str, expected: usize, found: usize) -> Result<(), FheError> {
    if expected == found {
        Ok(())
    } else {
        Err(FheError::WrongLength {
            what,
            expected,
            found,
        })
    }
}

/// Bytes of the bodies of a query, for a model whose features have so many codes each.
fn query_bodies(params: &Params, bins: impl Iterator<Item = usize>) -> usize {
    let n = params.shape.n;
    let (row, other) = (n * usize::from(params.width), n * usize::from(params.query_width));
    match params.kind {
        PlanKind::Linear => 2 * row,
        PlanKind::Pairs => bins.count() * ((params.shape.k + 1) * row + other) + row,
        PlanKind::Paths | PlanKind::Neurons => {
            packs(params, bins.map(bits).sum()) * params.ggsw.levels as usize * other
        }
    }
}

/// Bits of a code below `bins`.
pub(crate) fn bits(bins: usize) -> usize {
    (bins.max(2) - 1).ilog2() as usize + 1
}

/// Packed ciphertexts for so many bits, at each gadget level.
pub(crate) fn packs(params: &Params, bits: usize) -> usize {
    bits.div_ceil(1 << params.fold)
}

/// Bytes of a query.
pub(crate) fn query_len(params: &Params, bins: impl Iterator<Item = usize>) -> usize {
    HEADER + DIGEST + SEED_BYTES + query_bodies(params, bins)
}

/// The beginning of a query, up to its seed.
pub(crate) fn query_start(id: ParamsId, model: &ModelDigest, capacity: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(capacity);
    header(QUERY, id, &mut out);
    out.extend_from_slice(model);
    out
}

/// Seed and bodies of a query for a model.
pub(crate) fn read_query<'a>(
    bytes: &'a [u8],
    id: ParamsId,
    model: &ModelDigest,
    expected: usize,
) -> Result<(SeedBytes, &'a [u8]), FheError> {
    let (found, rest) = read_header(QUERY, "a query", bytes)?;
    expect_params(id, found)?;
    let (digest, rest) = rest.split_at_checked(DIGEST).ok_or(FheError::NotA("a query"))?;
    if digest != model {
        return Err(FheError::OtherModel);
    }
    expect_length("the query", expected, bytes.len())?;
    split_seed(rest)
}

fn split_seed(bytes: &[u8]) -> Result<(SeedBytes, &[u8]), FheError> {
    let (seed, bodies) = bytes
        .split_first_chunk::<SEED_BYTES>()
        .ok_or(FheError::NotA("a seeded list"))?;
    Ok((*seed, bodies))
}

/// The digest of a query.
pub fn query_digest(query: &[u8]) -> QueryDigest {
    Sha256::digest(query).into()
}

/// Polynomials of an evaluation key: automorphism keys, products of secrets, and the public key.
fn key_polynomials(params: &Params) -> usize {
    let (k, levels) = (params.shape.k, params.switch.levels as usize);
    params.fold as usize * k * levels + k * (k + 1) / 2 * levels + 1
}

/// Bytes of an evaluation key; 0 for plans without.
pub fn evaluation_key_len(id: ParamsId) -> usize {
    let params = id.params();
    match params.kind {
        PlanKind::Linear | PlanKind::Pairs => 0,
        PlanKind::Paths | PlanKind::Neurons => {
            HEADER + SEED_BYTES + key_polynomials(params) * params.shape.n * usize::from(params.width)
        }
    }
}

/// The parameter set that an evaluation key says it is for, by its first bytes.
///
/// # Errors
/// [`FheError::NotA`], [`FheError::UnknownParams`].
pub fn evaluation_key_params(start: &[u8]) -> Result<ParamsId, FheError> {
    read_header(KEY, "an evaluation key", start).map(|(id, _)| id)
}

pub(crate) fn key_start(id: ParamsId) -> Vec<u8> {
    let mut out = Vec::with_capacity(evaluation_key_len(id));
    header(KEY, id, &mut out);
    out
}

/// Seed and bodies of an evaluation key.
pub(crate) fn read_key(bytes: &[u8]) -> Result<(ParamsId, SeedBytes, &[u8]), FheError> {
    let (id, rest) = read_header(KEY, "an evaluation key", bytes)?;
    let expected = evaluation_key_len(id);
    if expected == 0 {
        return Err(FheError::NotA("an evaluation key"));
    }
    expect_length("the evaluation key", expected, bytes.len())?;
    let (seed, bodies) = split_seed(rest)?;
    Ok((id, seed, bodies))
}

/// Bytes of a reply with so many ciphertexts.
pub(crate) fn reply_len(params: &Params, ciphertexts: usize) -> usize {
    HEADER + 2 * DIGEST + ciphertexts * (params.shape.lwe_dimension() + 1) * usize::from(REPLY_WIDTH)
}

pub(crate) fn reply_start(
    id: ParamsId,
    model: &ModelDigest,
    query: &QueryDigest,
    ciphertexts: usize,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(reply_len(id.params(), ciphertexts));
    header(REPLY, id, &mut out);
    out.extend_from_slice(model);
    out.extend_from_slice(query);
    out
}

/// The bodies of a reply.
pub(crate) fn read_reply<'a>(
    bytes: &'a [u8],
    id: ParamsId,
    model: &ModelDigest,
    query: &QueryDigest,
    ciphertexts: usize,
) -> Result<&'a [u8], FheError> {
    let (found, rest) = read_header(REPLY, "a reply", bytes)?;
    expect_params(id, found)?;
    let (digests, bodies) = rest
        .split_at_checked(2 * DIGEST)
        .ok_or(FheError::NotA("a reply"))?;
    if digests[..DIGEST] != *model {
        return Err(FheError::OtherModel);
    }
    if digests[DIGEST..] != *query {
        return Err(FheError::OtherQuery);
    }
    expect_length("the reply", reply_len(id.params(), ciphertexts), bytes.len())?;
    Ok(bodies)
}

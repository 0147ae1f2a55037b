//! Keys come and go while services run, which follow the files: each step is durable before the next may begin.
//!
//! `prepare` makes the next key and publishes it beside the current one: the service answers to both, callers accept both.
//! `promote` makes it the one that the service calls with; the one before still counts. `retire` withdraws and shreds the
//! one before. Between two steps every service has to have looked at its files, which takes it two seconds at most.

use std::{fs, path::Path};

use asterism_channel::{PublicKey, StaticKey};
use asterism_store::{StoreError, files};

use super::{
    ChannelSetupError,
    directory::{NEXT, PREVIOUS, Peers, beside, files_of, public_file, read_key, unusable, wrong},
};
use crate::identity::PrincipalId;

/// A step of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The next key is there, and known.
    Prepare,
    /// The next key becomes the current one.
    Promote,
    /// The key before is withdrawn.
    Retire,
}

/// Makes a static key unless there is one, and puts its public half into the directory under the name of `principal`.
///
/// # Errors
/// [`ChannelSetupError`], also when the directory has only other keys of that name.
pub fn provision(
    key_file: &Path,
    peers_dir: &Path,
    principal: &PrincipalId,
) -> Result<PublicKey, ChannelSetupError> {
    let public_file = public_file(peers_dir, principal, 1);
    for dir in [key_file.parent(), public_file.parent()].into_iter().flatten() {
        files::create_private_dir(dir)?;
    }
    if !key_file.exists() {
        make_key(key_file)?;
    }
    let public = read_key(key_file)?.public();
    let peers = Peers::read(peers_dir)?.strict()?;
    let keys = peers.keys_of(principal);
    if keys.is_empty() {
        publish(&public_file, &public)?;
    } else if !keys.contains(&public) {
        let problem = format!("{} is another; delete one of the two", key_file.display());
        return Err(wrong(&public_file, problem));
    }
    Ok(public)
}

/// Does one step of the rotation of a principal's key; answers the key that the step is about.
///
/// # Errors
/// [`ChannelSetupError::Rotation`] for a step at the wrong time; others when files cannot be read or written.
pub fn rotate(
    step: Step,
    key_file: &Path,
    peers_dir: &Path,
    principal: &PrincipalId,
) -> Result<PublicKey, ChannelSetupError> {
    let (next, previous) = (beside(key_file, NEXT), beside(key_file, PREVIOUS));
    match step {
        Step::Prepare => {
            if previous.exists() {
                let text = "the key before is still there: retire it first";
                return Err(ChannelSetupError::Rotation(text));
            }
            // A step that was cut off is done again.
            if !next.exists() {
                make_key(&next)?;
            }
            let public = read_key(&next)?.public();
            let peers = Peers::read(peers_dir)?.strict()?;
            if !peers.contains(&public) {
                publish(
                    &public_file(peers_dir, principal, peers.newest(principal) + 1),
                    &public,
                )?;
            }
            Ok(public)
        }
        Step::Promote => {
            if !next.exists() {
                return Err(ChannelSetupError::Rotation(
                    "there is no next key: prepare one first",
                ));
            }
            let public = read_key(&next)?.public();
            if files_of(peers_dir, principal, &public)?.is_empty() {
                let text = "the next key is not in the directory: prepare again first";
                return Err(ChannelSetupError::Rotation(text));
            }
            // Copied, not moved: at every moment there is a current key. A step that was cut off is done again.
            if !previous.exists() {
                copy(key_file, &previous)?;
            }
            copy(&next, key_file)?;
            files::shred(&next)?;
            Ok(public)
        }
        Step::Retire => {
            if next.exists() {
                return Err(ChannelSetupError::Rotation(
                    "the next key is not the current one yet: promote it first",
                ));
            }
            if !previous.exists() {
                return Err(ChannelSetupError::Rotation(
                    "there is no key before the current one",
                ));
            }
            let public = read_key(&previous)?.public();
            if read_key(key_file)?.public() != public {
                for path in files_of(peers_dir, principal, &public)? {
                    fs::remove_file(&path).map_err(|error| wrong(&path, error))?;
                }
            }
            files::shred(&previous)?;
            Ok(public)
        }
    }
}

fn make_key(path: &Path) -> Result<(), ChannelSetupError> {
    let key = StaticKey::generate().map_err(|source| unusable(path, source))?;
    Ok(files::write_atomic(path, key.to_text().as_bytes(), 0o600)?)
}

fn copy(from: &Path, to: &Path) -> Result<(), ChannelSetupError> {
    let text = read_key(from)?.to_text();
    Ok(files::write_atomic(to, text.as_bytes(), 0o600)?)
}

fn publish(path: &Path, key: &PublicKey) -> Result<(), StoreError> {
    files::write_atomic(path, format!("{key}\n").as_bytes(), 0o600)
}

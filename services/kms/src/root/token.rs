//! A key in a PKCS #11 token as the seal: the unseal key is encrypted by it (CKM_AES_GCM), and it never leaves the token.
//!
//! The module is initialised for each use and finalised after it, so that no session stays logged in; it stays loaded, because some modules do not bear
//! to be unloaded. One use at a time.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use asterism_crypto::{SecretBytes, SecretKey, random_array};
use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Function, Pkcs11},
    error::{Error, RvError},
    mechanism::{Mechanism, aead::GcmParams},
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::{Session, UserType},
    slot::Slot,
    types::AuthPin,
};

use super::{RootError, TokenError, file::Kind, secret_file};
use crate::config::Pkcs11Config;

const TAG_BITS: u64 = 128;
const IV_BYTES: usize = 12;
const KEY_BYTES: u64 = 32;

/// Modules that were loaded. Locked for as long as one is used.
static MODULES: Mutex<Option<HashMap<PathBuf, Pkcs11>>> = Mutex::new(None);

/// Which token, and which key in it.
struct Place<'a> {
    module: &'a Path,
    token_label: &'a str,
    key_label: &'a str,
    pin: AuthPin,
}

/// Encrypts a fresh unseal key by the token's key, which is made unless it is there.
///
/// # Errors
/// [`RootError::Token`], and when the PIN's file cannot be read.
pub(crate) fn seal(config: &Pkcs11Config, aad: &[u8]) -> Result<(Kind, SecretKey), RootError> {
    let place = Place::of(config, &config.key_label)?;
    let unseal_key = SecretKey::generate()?;
    let mut iv: [u8; IV_BYTES] = random_array()?;
    let wrapped = place.with_session(true, |session| {
        let key = match find_key(session, place.key_label) {
            Err(TokenError::NoKey(_)) => make_key(session, place.key_label)?,
            found => found?,
        };
        // Some tokens choose the initialisation vector themselves, and write it where this one is.
        let params = GcmParams::new(&mut iv, aad, TAG_BITS.into()).map_err(failed)?;
        session
            .encrypt(&Mechanism::AesGcm(params), key, unseal_key.expose())
            .map_err(failed)
    })?;
    let kind = Kind::Token {
        key_label: place.key_label.to_owned(),
        iv: iv.to_vec(),
        wrapped,
    };
    // Better now than at the next start.
    let opened = open(config, &kind, aad)?;
    if opened.expose() == unseal_key.expose() {
        Ok((kind, unseal_key))
    } else {
        Err(TokenError::WrongKey(place.key_label.to_owned()).into())
    }
}

/// Decrypts the unseal key.
///
/// # Errors
/// As [`seal`].
pub(crate) fn open(config: &Pkcs11Config, kind: &Kind, aad: &[u8]) -> Result<SecretKey, RootError> {
    let Kind::Token {
        key_label,
        iv,
        wrapped,
    } = kind
    else {
        return Err(TokenError::NotSet.into());
    };
    let place = Place::of(config, key_label)?;
    let mut iv = iv.clone();
    let bytes = place.with_session(false, |session| {
        let key = find_key(session, key_label)?;
        let params = GcmParams::new(&mut iv, aad, TAG_BITS.into()).map_err(failed)?;
        let opened = session.decrypt(&Mechanism::AesGcm(params), key, wrapped);
        opened.map(SecretBytes::new).map_err(|error| match error {
            // What a tag that does not fit is called differs from module to module.
            Error::Pkcs11(
                RvError::EncryptedDataInvalid
                | RvError::EncryptedDataLenRange
                | RvError::GeneralError
                | RvError::FunctionFailed,
                Function::Decrypt,
            ) => TokenError::WrongKey(key_label.clone()),
            other => failed(other),
        })
    })?;
    SecretKey::try_from_slice(bytes.expose()).map_err(|_| TokenError::WrongKey(key_label.clone()).into())
}

impl<'a> Place<'a> {
    fn of(config: &'a Pkcs11Config, key_label: &'a str) -> Result<Self, RootError> {
        let (Some(module), Some(token_label), Some(pin_file)) =
            (&config.module, &config.token_label, &config.pin_file)
        else {
            return Err(TokenError::NotSet.into());
        };
        let bytes = secret_file(pin_file)?;
        let pin = str::from_utf8(bytes.trim_ascii_end())
            .ok()
            .filter(|pin| !pin.is_empty());
        let pin = pin.ok_or_else(|| TokenError::NoPin(pin_file.display().to_string()))?;
        Ok(Self {
            module,
            token_label,
            key_label,
            pin: AuthPin::from(pin),
        })
    }

    /// Does something in a session of the user.
    fn with_session<T>(
        &self,
        writes: bool,
        work: impl FnOnce(&Session) -> Result<T, TokenError>,
    ) -> Result<T, TokenError> {
        let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
        let modules = modules.get_or_insert_default();
        let module = match modules.get(self.module) {
            Some(module) => module.clone(),
            None => {
                let module = Pkcs11::new(self.module).map_err(|error| TokenError::Module {
                    path: self.module.display().to_string(),
                    why: error.to_string(),
                })?;
                modules.insert(self.module.to_owned(), module.clone());
                module
            }
        };
        module
            .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
            .map_err(failed)?;
        let result = self.in_session(&module, writes, work);
        // Logs out and ends all sessions. What it may fail of is no reason to have failed.
        if let Err(error) = module.finalize() {
            tracing::warn!(%error, "the PKCS #11 module could not be finalised");
        }
        result
    }

    fn in_session<T>(
        &self,
        module: &Pkcs11,
        writes: bool,
        work: impl FnOnce(&Session) -> Result<T, TokenError>,
    ) -> Result<T, TokenError> {
        let slot = self.find_slot(module)?;
        let session = if writes {
            module.open_rw_session(slot)
        } else {
            module.open_ro_session(slot)
        };
        let session = session.map_err(failed)?;
        session
            .login(UserType::User, Some(&self.pin))
            .map_err(|error| match error {
                Error::Pkcs11(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange, _) => {
                    TokenError::WrongPin
                }
                Error::Pkcs11(RvError::PinLocked | RvError::PinExpired, _) => TokenError::PinLocked,
                other => failed(other),
            })?;
        work(&session)
    }

    fn find_slot(&self, module: &Pkcs11) -> Result<Slot, TokenError> {
        let mut found = None;
        for slot in module.get_slots_with_initialized_token().map_err(failed)? {
            let info = module.get_token_info(slot).map_err(failed)?;
            if info.label() == self.token_label && found.replace(slot).is_some() {
                return Err(TokenError::ManyTokens(self.token_label.to_owned()));
            }
        }
        found.ok_or_else(|| TokenError::NoToken(self.token_label.to_owned()))
    }
}

fn find_key(session: &Session, label: &str) -> Result<ObjectHandle, TokenError> {
    let template = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Label(label.as_bytes().to_vec()),
    ];
    let key = match session.find_objects(&template).map_err(failed)?.as_slice() {
        [] => return Err(TokenError::NoKey(label.to_owned())),
        [key] => *key,
        _ => return Err(TokenError::ManyKeys(label.to_owned())),
    };
    let needed = [
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        Attribute::ValueLen(KEY_BYTES.into()),
    ];
    let types: Vec<AttributeType> = needed.iter().map(Attribute::attribute_type).collect();
    let has = session.get_attributes(key, &types).map_err(failed)?;
    if needed.iter().all(|attribute| has.contains(attribute)) {
        Ok(key)
    } else {
        Err(TokenError::UnfitKey(label.to_owned()))
    }
}

fn make_key(session: &Session, label: &str) -> Result<ObjectHandle, TokenError> {
    let template = [
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        Attribute::ValueLen(KEY_BYTES.into()),
        Attribute::Label(label.as_bytes().to_vec()),
    ];
    session
        .generate_key(&Mechanism::AesKeyGen, &template)
        .map_err(failed)
}

fn failed(error: Error) -> TokenError {
    TokenError::Failed(error.to_string())
}

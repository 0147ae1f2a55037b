//! Passwords that the server never sees: OPAQUE-3DH (RFC 9807) over ristretto255 and SHA-512, stretched by Argon2id on the client.
//!
//! Bytes in, bytes out. Registration: [`Registration::start`] -> [`Server::register`] -> [`Registration::finish`] -> [`Server::accept`], which gives
//! what the server keeps. Login: [`Login::start`] -> [`Server::challenge`] -> [`Login::finish`] -> [`Challenged::finish`]. Somebody whom the server does not know has a [`Server::decoy`] there, and is
//! answered what nobody can tell from a known one's. Both sides are bound to the same names: the client's, and [`SERVER_NAME`].
//!
//! The rule: who has seen an answer to [`Login::start`] can tell whether the password was right. So the server must count the attempt
//! before it answers, not when it fails.

use argon2::{Algorithm, Argon2, Params, Version};
use opaque_ke::{
    CipherSuite, ClientLogin, ClientLoginFinishParameters, ClientRegistration,
    ClientRegistrationFinishParameters, CredentialFinalization, CredentialRequest, CredentialResponse,
    Identifiers, RegistrationRequest, RegistrationResponse, RegistrationUpload, Ristretto255, ServerLogin,
    ServerLoginParameters, ServerRegistration, ServerSetup, TripleDh,
    errors::{InternalError, ProtocolError},
    generic_array::{ArrayLength, GenericArray},
    ksf::Ksf,
    rand,
};
use sha2_for_opaque::Sha512;

use crate::{Argon2Params, CryptoError, SecretBytes};

/// The server's name in the protocol.
pub const SERVER_NAME: &str = "asterism/kms";
const CONTEXT: &[u8] = b"asterism/opaque/v1";
/// Bytes of each message, and of the server's keys, in this suite: the library would overlook what comes after them.
const REGISTRATION_REQUEST: usize = 32;
const REGISTRATION_RESPONSE: usize = 64;
const REGISTRATION_UPLOAD: usize = 192;
const CREDENTIAL_REQUEST: usize = 96;
const CREDENTIAL_RESPONSE: usize = 320;
const CREDENTIAL_FINALIZATION: usize = 64;
const SERVER_KEYS: usize = 128;

struct Suite;

impl CipherSuite for Suite {
    type OprfCs = Ristretto255;
    type KeyExchange = TripleDh<Ristretto255, Sha512>;
    type Ksf = Stretch;
}

/// Argon2id with the parameters of [`Argon2Params::default`]; the salt is all zeros, as RFC 9807 has it: the input is not a
/// password but the output of a keyed function of it.
#[derive(Default)]
struct Stretch;

impl Ksf for Stretch {
    fn hash<L: ArrayLength<u8>>(
        &self,
        input: GenericArray<u8, L>,
    ) -> Result<GenericArray<u8, L>, InternalError> {
        let Argon2Params {
            memory_kib,
            iterations,
            parallelism,
        } = Argon2Params::default();
        let mut output = GenericArray::default();
        let params = Params::new(memory_kib, iterations, parallelism, Some(output.len()))
            .map_err(|_| InternalError::KsfError)?;
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(&input, &[0; 16], &mut output)
            .map_err(|_| InternalError::KsfError)?;
        Ok(output)
    }
}

/// The operating system's randomness, as the generation of `opaque-ke` wants it.
struct OsRandom;

impl rand::RngCore for OsRandom {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill_bytes(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_bytes(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("an operating system that gave randomness at the start goes on to");
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl rand::CryptoRng for OsRandom {}

/// The server's long-lived keys. Lost, no password works any more; leaked, records can be guessed at offline.
pub struct Server(ServerSetup<Suite>);

impl Server {
    /// Fresh keys.
    ///
    /// # Errors
    /// [`CryptoError::Randomness`]
    pub fn generate() -> Result<Self, CryptoError> {
        crate::random_array::<1>()?;
        Ok(Self(ServerSetup::new(&mut OsRandom)))
    }

    /// Reads what [`Server::to_secret_bytes`] gave.
    ///
    /// # Errors
    /// [`CryptoError::InvalidKey`]
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CryptoError> {
        sized(bytes, SERVER_KEYS).map_err(|_| CryptoError::InvalidKey)?;
        ServerSetup::deserialize(bytes)
            .map(Self)
            .map_err(|_| CryptoError::InvalidKey)
    }

    /// The keys: handle with care.
    pub fn to_secret_bytes(&self) -> SecretBytes {
        SecretBytes::new(self.0.serialize().to_vec())
    }

    /// Answers the first message of a registration of `name`.
    ///
    /// # Errors
    /// [`CryptoError::Malformed`]
    pub fn register(&self, name: &str, request: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let request =
            RegistrationRequest::deserialize(sized(request, REGISTRATION_REQUEST)?).map_err(malformed)?;
        let started =
            ServerRegistration::<Suite>::start(&self.0, request, name.as_bytes()).map_err(malformed)?;
        Ok(started.message.serialize().to_vec())
    }

    /// What to keep of a registration's last message. Nearly as secret as a hash of the password: seal it.
    ///
    /// # Errors
    /// [`CryptoError::Malformed`]
    pub fn accept(upload: &[u8]) -> Result<SecretBytes, CryptoError> {
        let upload =
            RegistrationUpload::deserialize(sized(upload, REGISTRATION_UPLOAD)?).map_err(malformed)?;
        let record = ServerRegistration::<Suite>::finish(upload);
        Ok(SecretBytes::new(record.serialize().to_vec()))
    }

    /// A record of nobody, which no password opens: for who is unknown, so that the answer comes the same way and takes as long as a known one's
    /// (RFC 9807, 6.3.2.2).
    ///
    /// # Errors
    /// [`CryptoError::Randomness`]
    pub fn decoy(&self) -> Result<SecretBytes, CryptoError> {
        let mut upload = self.0.keypair().public().serialize().to_vec();
        // The masking key and the envelope.
        upload.extend(crate::random_array::<{ REGISTRATION_UPLOAD - 32 }>()?);
        Self::accept(&upload)
    }

    /// Answers the first message of a login of `name`, who has `record`; for who has none, a [`Server::decoy`].
    ///
    /// # Errors
    /// [`CryptoError::Malformed`]
    pub fn challenge(
        &self,
        name: &str,
        record: &SecretBytes,
        request: &[u8],
    ) -> Result<(Challenged, Vec<u8>), CryptoError> {
        let request =
            CredentialRequest::deserialize(sized(request, CREDENTIAL_REQUEST)?).map_err(malformed)?;
        let record = ServerRegistration::deserialize(record.expose()).map_err(malformed)?;
        let started = ServerLogin::start(
            &mut OsRandom,
            &self.0,
            Some(record),
            request,
            name.as_bytes(),
            parameters(name),
        )
        .map_err(malformed)?;
        let challenged = Challenged {
            state: started.state,
            name: name.to_owned(),
        };
        Ok((challenged, started.message.serialize().to_vec()))
    }
}

/// A login that waits for its last message.
pub struct Challenged {
    state: ServerLogin<Suite>,
    name: String,
}

impl Challenged {
    /// Whether the last message proves the password.
    ///
    /// # Errors
    /// [`CryptoError::Authentication`], whatever is wrong.
    pub fn finish(self, finalization: &[u8]) -> Result<(), CryptoError> {
        const WRONG: CryptoError = CryptoError::Authentication;
        let finalization = sized(finalization, CREDENTIAL_FINALIZATION).map_err(|_| WRONG)?;
        let finalization = CredentialFinalization::deserialize(finalization).map_err(|_| WRONG)?;
        self.state
            .finish(finalization, parameters(&self.name))
            .map(|_| ())
            .map_err(|_| WRONG)
    }
}

/// The client's side of a registration.
pub struct Registration(ClientRegistration<Suite>);

impl Registration {
    /// Begins; the bytes are for the server.
    ///
    /// # Errors
    /// [`CryptoError::InvalidParameters`] for an empty password, or one of more than 65535 bytes.
    pub fn start(password: &[u8]) -> Result<(Self, Vec<u8>), CryptoError> {
        let started = ClientRegistration::start(&mut OsRandom, usable(password)?).map_err(malformed)?;
        Ok((Self(started.state), started.message.serialize().to_vec()))
    }

    /// Ends with what the server is to keep. Takes the time of one Argon2id.
    ///
    /// # Errors
    /// [`CryptoError::Malformed`]
    pub fn finish(self, name: &str, password: &[u8], response: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let response =
            RegistrationResponse::deserialize(sized(response, REGISTRATION_RESPONSE)?).map_err(malformed)?;
        let parameters = ClientRegistrationFinishParameters::new(identifiers(name), None);
        let finished = self
            .0
            .finish(&mut OsRandom, password, response, parameters)
            .map_err(malformed)?;
        Ok(finished.message.serialize().to_vec())
    }
}

/// The client's side of a login.
pub struct Login(ClientLogin<Suite>);

impl Login {
    /// Begins; the bytes are for the server.
    ///
    /// # Errors
    /// [`CryptoError::InvalidParameters`] for an empty password, or one of more than 65535 bytes.
    pub fn start(password: &[u8]) -> Result<(Self, Vec<u8>), CryptoError> {
        let started = ClientLogin::start(&mut OsRandom, usable(password)?).map_err(malformed)?;
        Ok((Self(started.state), started.message.serialize().to_vec()))
    }

    /// Ends with the proof for the server. Takes the time of one Argon2id.
    ///
    /// # Errors
    /// [`CryptoError::Authentication`] for a wrong password, somebody whom the server does not know, and a server that is not the one
    /// of the registration alike; [`CryptoError::Malformed`].
    pub fn finish(self, name: &str, password: &[u8], response: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let response =
            CredentialResponse::deserialize(sized(response, CREDENTIAL_RESPONSE)?).map_err(malformed)?;
        let parameters = ClientLoginFinishParameters::new(Some(CONTEXT), identifiers(name), None);
        let finished = self
            .0
            .finish(&mut OsRandom, password, response, parameters)
            .map_err(|error| match error {
                ProtocolError::InvalidLoginError => CryptoError::Authentication,
                other => malformed(other),
            })?;
        Ok(finished.message.serialize().to_vec())
    }
}

fn identifiers(name: &str) -> Identifiers<'_> {
    Identifiers {
        client: Some(name.as_bytes()),
        server: Some(SERVER_NAME.as_bytes()),
    }
}

fn parameters(name: &str) -> ServerLoginParameters<'static, '_> {
    ServerLoginParameters {
        context: Some(CONTEXT),
        identifiers: identifiers(name),
    }
}

fn usable(password: &[u8]) -> Result<&[u8], CryptoError> {
    if password.is_empty() || password.len() > usize::from(u16::MAX) {
        return Err(CryptoError::InvalidParameters("a password has 1 to 65535 bytes"));
    }
    Ok(password)
}

fn sized(message: &[u8], length: usize) -> Result<&[u8], CryptoError> {
    if message.len() == length {
        Ok(message)
    } else {
        Err(CryptoError::Malformed("OPAQUE message"))
    }
}

fn malformed(_: ProtocolError) -> CryptoError {
    CryptoError::Malformed("OPAQUE message")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: &str = "user/alice";
    const PASSWORD: &[u8] = b"correct horse battery staple";

    fn registered(server: &Server, name: &str, password: &[u8]) -> SecretBytes {
        let (registration, request) = Registration::start(password).expect("started");
        let response = server.register(name, &request).expect("answered");
        let upload = registration.finish(name, password, &response).expect("finished");
        Server::accept(&upload).expect("kept")
    }

    fn login(server: &Server, record: &SecretBytes, name: &str, password: &[u8]) -> Result<(), CryptoError> {
        let (login, request) = Login::start(password)?;
        let (challenged, response) = server.challenge(name, record, &request)?;
        challenged.finish(&login.finish(name, password, &response)?)
    }

    #[test]
    fn the_right_password_opens_and_nothing_else_does() {
        let server = Server::generate().expect("keys");
        let record = registered(&server, ALICE, PASSWORD);
        let again = Server::from_bytes(server.to_secret_bytes().expose()).expect("read back");
        login(&again, &record, ALICE, PASSWORD).expect("logged in");
        let refused = Err(CryptoError::Authentication);
        assert_eq!(
            login(&server, &record, ALICE, b"correct horse battery stapl"),
            refused
        );
        assert_eq!(
            login(&server, &server.decoy().expect("made"), ALICE, PASSWORD),
            refused,
            "unknown"
        );
        assert_eq!(
            login(&server, &record, "user/bob", PASSWORD),
            refused,
            "another's record"
        );
        let other = Server::generate().expect("keys");
        assert_eq!(login(&other, &record, ALICE, PASSWORD), refused, "another server");
    }

    #[test]
    fn a_proof_serves_one_login() {
        let server = Server::generate().expect("keys");
        let record = registered(&server, ALICE, PASSWORD);
        let (login, request) = Login::start(PASSWORD).expect("started");
        let (first, response) = server.challenge(ALICE, &record, &request).expect("answered");
        let proof = login.finish(ALICE, PASSWORD, &response).expect("finished");
        let (second, _) = server.challenge(ALICE, &record, &request).expect("answered");
        assert_eq!(
            second.finish(&proof),
            Err(CryptoError::Authentication),
            "replayed"
        );
        assert_eq!(first.finish(&proof), Ok(()));
    }

    #[test]
    fn answers_to_known_and_unknown_have_one_form() {
        let server = Server::generate().expect("keys");
        let record = registered(&server, ALICE, PASSWORD);
        let (_, request) = Login::start(PASSWORD).expect("started");
        let answer = |record| server.challenge(ALICE, record, &request).expect("answered").1;
        let decoy = server.decoy().expect("made");
        let (known, unknown) = (answer(&record), answer(&decoy));
        assert_eq!(known.len(), unknown.len());
        // The first element is a function of name and request alone; what follows is fresh each time.
        assert_eq!(known[..32], unknown[..32]);
        assert_ne!(known[32..], answer(&record)[32..]);
        assert_ne!(unknown[32..], answer(&decoy)[32..]);
    }

    #[test]
    fn no_message_holds_the_password() {
        let server = Server::generate().expect("keys");
        let (registration, request) = Registration::start(PASSWORD).expect("started");
        let response = server.register(ALICE, &request).expect("answered");
        let upload = registration.finish(ALICE, PASSWORD, &response).expect("finished");
        let record = Server::accept(&upload).expect("kept");
        for message in [&request, &response, &upload, record.expose()] {
            assert!(
                !message
                    .windows(8)
                    .any(|window| PASSWORD.windows(8).any(|part| part == window))
            );
        }
    }

    #[test]
    fn malformed_messages_are_refused() {
        let server = Server::generate().expect("keys");
        let decoy = server.decoy().expect("made");
        let (_, request) = Login::start(PASSWORD).expect("started");
        for message in [&[][..], &[0; 32], &[0xff; 96], &[1; 1000], &request[..95]] {
            assert!(server.register(ALICE, message).is_err());
            assert!(server.challenge(ALICE, &decoy, message).is_err());
            assert!(Server::accept(message).is_err());
        }
        assert!(Login::start(b"").is_err());
        assert!(Server::from_bytes(&[0; 128]).is_err());
    }
}

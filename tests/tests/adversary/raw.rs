//! Calls of any method with any bytes.

use std::time::Duration;

use asterism::connect::Endpoints;
use asterism_client::Connection;
use futures::stream;
use prost::{
    Message as _,
    bytes::{Buf as _, BufMut as _},
};
use prost_types::{DescriptorProto, FileDescriptorSet};
use tonic::{
    Code, Request, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
};

/// Streams that have no end of their own are left after that.
const ENOUGH: Duration = Duration::from_millis(300);

/// Messages as the bytes that they are.
#[derive(Clone, Copy, Default)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining()).to_vec()))
    }
}

/// A method of the contracts.
#[derive(Clone)]
pub struct Method {
    /// `package.Service/Method`
    pub name: String,
    /// Of the request, as descriptors write it: `.package.Message`.
    pub input: String,
    pub endless: bool,
}

impl Method {
    /// Where the method is.
    pub fn endpoint<'a>(&self, endpoints: &'a Endpoints) -> &'a str {
        let of = |package: &str| self.name.starts_with(package);
        if of("asterism.audit.") {
            &endpoints.audit
        } else if of("asterism.ingest.") {
            &endpoints.ingest
        } else if of("asterism.inference.") || of("inference.") {
            &endpoints.inference
        } else {
            &endpoints.kms
        }
    }
}

/// What the contracts say.
pub struct Contracts(FileDescriptorSet);

impl Contracts {
    pub fn load() -> Self {
        Self(FileDescriptorSet::decode(asterism_proto::FILE_DESCRIPTOR_SET).unwrap())
    }

    pub fn methods(&self) -> Vec<Method> {
        let mut methods = vec![];
        for file in &self.0.file {
            for service in &file.service {
                for method in &service.method {
                    methods.push(Method {
                        name: format!("{}.{}/{}", file.package(), service.name(), method.name()),
                        input: method.input_type().to_owned(),
                        endless: method.name().starts_with("Watch"),
                    });
                }
            }
        }
        methods
    }

    /// A message by its full name, also one that lies within another.
    pub fn message(&self, name: &str) -> Option<&DescriptorProto> {
        self.0.file.iter().find_map(|file| {
            let within = name.strip_prefix(&format!(".{}.", file.package()))?;
            let mut parts = within.split('.');
            let first = parts.next()?;
            let mut found = file.message_type.iter().find(|m| m.name() == first)?;
            for part in parts {
                found = found.nested_type.iter().find(|m| m.name() == part)?;
            }
            Some(found)
        })
    }
}

/// Sends one message, which says all there is for methods of one message and of streams alike, and gives the status at the end.
pub async fn call(connection: &Connection, method: &Method, message: Vec<u8>) -> Status {
    let mut client = tonic::client::Grpc::new(connection.service());
    let path: PathAndQuery = format!("/{}", method.name).parse().unwrap();
    if let Err(error) = client.ready().await {
        return Status::unavailable(error.to_string());
    }
    let request = Request::new(stream::iter([message]));
    let work = async {
        let mut answers = client.streaming(request, path, Bytes).await?.into_inner();
        while answers.message().await?.is_some() {}
        Ok::<_, Status>(())
    };
    if method.endless {
        return match tokio::time::timeout(ENOUGH, work).await {
            Ok(Err(status)) => status,
            Ok(Ok(())) | Err(_) => Status::new(Code::Ok, ""),
        };
    }
    match work.await {
        Ok(()) => Status::new(Code::Ok, ""),
        Err(status) => status,
    }
}

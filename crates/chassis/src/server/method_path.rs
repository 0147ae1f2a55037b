//! The method that a request asks for, and what the contracts say about it.

use std::{collections::HashMap, sync::LazyLock};

use prost::Message as _;
use prost_types::FileDescriptorSet;

/// The method of a request as `package.Service/Method`, without a leading slash. In every request's extensions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MethodPath(pub String);

impl MethodPath {
    /// Reads it off the HTTP path.
    pub(super) fn of(uri: &http::Uri) -> Self {
        Self(uri.path().trim_start_matches('/').to_owned())
    }
}

/// A method that our contracts, health or reflection know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Method {
    /// `package.Service/Method`.
    pub(super) name: &'static str,
    pub(super) client_streaming: bool,
    pub(super) server_streaming: bool,
}

impl Method {
    /// Reads the contracts now rather than during the first call.
    pub(super) fn prepare() {
        LazyLock::force(&METHODS);
    }

    pub(super) fn find(path: &MethodPath) -> Option<Self> {
        let (name, (client_streaming, server_streaming)) = METHODS.get_key_value(path.0.as_str())?;
        Some(Self {
            name,
            client_streaming: *client_streaming,
            server_streaming: *server_streaming,
        })
    }

    /// Whether its stream has no end of its own: such streams would hold up every shutdown.
    pub(super) fn is_endless(&self) -> bool {
        let method = self.name.rsplit('/').next().unwrap_or_default();
        self.server_streaming && (method.starts_with("Watch") || method == "ServerReflectionInfo")
    }
}

type Streaming = (bool, bool);

/// Every known method and whether the client and the server stream.
static METHODS: LazyLock<HashMap<String, Streaming>> = LazyLock::new(|| {
    let ours = FileDescriptorSet::decode(asterism_proto::FILE_DESCRIPTOR_SET)
        .expect("the build script encoded these descriptors");
    let mut methods = HashMap::new();
    for file in &ours.file {
        for service in &file.service {
            for method in &service.method {
                let path = format!("{}.{}/{}", file.package(), service.name(), method.name());
                methods.insert(path, (method.client_streaming(), method.server_streaming()));
            }
        }
    }
    methods.insert("grpc.health.v1.Health/Check".to_owned(), (false, false));
    methods.insert("grpc.health.v1.Health/Watch".to_owned(), (false, true));
    for version in ["v1", "v1alpha"] {
        let path = format!("grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        methods.insert(path, (true, true));
    }
    methods
});

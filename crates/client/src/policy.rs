//! Grants, explanations and approvals.

mod asker;

use asterism_proto::policy::{self as pb, policy_service_client::PolicyServiceClient};
use tonic::{service::interceptor::InterceptedService, transport::Channel};

pub use asker::{ANSWERS_HOLD_FOR, Asker, Question, Verdict};

use crate::{
    connection::{Carried, Connection, MAX_MESSAGE_BYTES},
    error::ClientError,
};

type Client = PolicyServiceClient<InterceptedService<Channel, Carried>>;

/// Client of `asterism.policy.v1.PolicyService`, which kms serves. Grants and approvals are named in full, like `grants/{id}`.
#[derive(Clone)]
pub struct Policy {
    connection: Connection,
}

macro_rules! call {
    ($this:ident, $method:ident, $request:expr) => {{
        let request = $request;
        $this
            .connection
            .retrying(|| client_call!($this, $method, request))
            .await
    }};
}

impl Policy {
    /// A client over a connection to kms.
    pub fn new(connection: Connection) -> Self {
        Self { connection }
    }

    fn client(&self) -> Client {
        Client::new(self.connection.service())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Makes a grant. With a request id it is tried again after a broken connection; with an empty one it is made once.
    pub async fn create_grant(&self, grant: pb::Grant, request_id: &str) -> Result<pb::Grant, ClientError> {
        let request = pb::CreateGrantRequest {
            grant: Some(grant),
            request_id: request_id.to_owned(),
        };
        if request_id.is_empty() {
            return self.connection.once(self.client().create_grant(request)).await;
        }
        call!(self, create_grant, request)
    }

    /// A grant.
    pub async fn grant(&self, name: &str) -> Result<pb::Grant, ClientError> {
        call!(
            self,
            get_grant,
            pb::GetGrantRequest {
                name: name.to_owned()
            }
        )
    }

    /// Every grant that the caller may see, on `resource` and about `subject` where these are not empty.
    pub async fn grants(&self, resource: &str, subject: &str) -> Result<Vec<pb::Grant>, ClientError> {
        let mut request = pb::ListGrantsRequest {
            resource: resource.to_owned(),
            subject: subject.to_owned(),
            page_size: 1000,
            page_token: String::new(),
        };
        let mut grants = Vec::new();
        loop {
            let page = call!(self, list_grants, request.clone())?;
            grants.extend(page.grants);
            if page.next_page_token.is_empty() {
                return Ok(grants);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Replaces all of a grant but its resource; when `grant.etag` is not empty, only if it has not changed since.
    pub async fn update_grant(&self, grant: pb::Grant) -> Result<pb::Grant, ClientError> {
        let request = pb::UpdateGrantRequest { grant: Some(grant) };
        self.connection.once(self.client().update_grant(request)).await
    }

    /// Removes a grant; when `etag` is not empty, only if it has not changed since.
    pub async fn delete_grant(&self, name: &str, etag: &str) -> Result<(), ClientError> {
        let request = pb::DeleteGrantRequest {
            name: name.to_owned(),
            etag: etag.to_owned(),
        };
        self.connection.once(self.client().delete_grant(request)).await?;
        Ok(())
    }

    /// Whether a call would pass, and why.
    pub async fn explain(
        &self,
        request: pb::ExplainAccessRequest,
    ) -> Result<pb::ExplainAccessResponse, ClientError> {
        call!(self, explain_access, request)
    }

    /// For services: whether whom they act for may do that.
    pub async fn check(&self, request: pb::CheckAccessRequest) -> Result<bool, ClientError> {
        let answer = call!(self, check_access, request)?;
        Ok(answer.allowed)
    }

    /// Every approval that the caller asked for or may decide.
    pub async fn approvals(&self) -> Result<Vec<pb::Approval>, ClientError> {
        let mut request = pb::ListApprovalsRequest {
            page_size: 1000,
            page_token: String::new(),
        };
        let mut approvals = Vec::new();
        loop {
            let page = call!(self, list_approvals, request.clone())?;
            approvals.extend(page.approvals);
            if page.next_page_token.is_empty() {
                return Ok(approvals);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// An approval.
    pub async fn approval(&self, name: &str) -> Result<pb::Approval, ClientError> {
        call!(
            self,
            get_approval,
            pb::GetApprovalRequest {
                name: name.to_owned()
            }
        )
    }

    /// Says yes to what somebody else asks for.
    pub async fn approve(&self, name: &str) -> Result<pb::Approval, ClientError> {
        let name = name.to_owned();
        call!(self, approve_operation, pb::ApproveOperationRequest { name })
    }

    /// Says no to what somebody else asks for.
    pub async fn reject(&self, name: &str) -> Result<pb::Approval, ClientError> {
        let request = pb::RejectOperationRequest {
            name: name.to_owned(),
        };
        self.connection
            .once(self.client().reject_operation(request))
            .await
    }
}

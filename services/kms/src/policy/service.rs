//! The gRPC adapter of the policy.

use std::sync::Arc;

use asterism_chassis::{
    call::{Caller, Gate, Trail},
    error::Failure,
    identity::{PrincipalId, Role},
    paging::page_size,
};
use asterism_crypto::Digest;
use asterism_policy::{Effect, Grant, Pattern, Request as Call, Step, Verb, Weight};
use asterism_proto::policy::{self as pb, policy_service_server::PolicyService};
use tonic::{Request, Response, Status};

use super::{Approval, Held, Policy, PolicyError, access::with_bound_owner, grants, wire};
use crate::{Clock, keys::MAX_INPUT_BYTES, vault::Vault};

pub(crate) struct PolicyAdapter {
    gate: Gate,
    vault: Arc<Vault>,
    clock: Clock,
}

impl PolicyAdapter {
    pub(crate) fn new(gate: Gate, vault: Arc<Vault>, clock: Clock) -> Self {
        Self { gate, vault, clock }
    }

    /// Runs an operation on the policy, at the moment of the request.
    async fn on_policy<Req, Res>(
        &self,
        operation: &'static str,
        request: Request<Req>,
        work: impl FnOnce(&On<'_>, Req, &mut Trail) -> Result<Res, Failure> + Send + 'static,
    ) -> Result<Response<Res>, Status>
    where
        Req: Send + 'static,
        Res: Send + 'static,
    {
        let (vault, clock) = (self.vault.clone(), self.clock.clone());
        self.gate
            .blocking(operation, request, move |caller, message, trail| {
                let open = vault.get()?;
                let on = On {
                    caller,
                    policy: &open.policy,
                    now_ms: clock(),
                };
                work(&on, message, trail)
            })
            .await
    }
}

/// The policy at the moment of a request.
struct On<'a> {
    caller: &'a Caller,
    policy: &'a Policy,
    now_ms: u64,
}

/// Whether the caller sees every grant and asks about everybody.
fn sees_all(caller: &Caller) -> bool {
    caller.principal.is(Role::Admin) || caller.principal.is(Role::Auditor)
}

fn covers_caller(grant: &Grant, caller: &Caller) -> bool {
    let who = [caller.principal.id.as_str(), caller.owner().as_str()];
    grant.subject.covers(&who, &caller.principal.roles)
}

impl Policy {
    /// Whether the caller administers the resource of a grant; to who may not see a key, it does not exist.
    fn may_change(&self, caller: &Caller, grant: &Grant, now_ms: u64) -> Result<(), Failure> {
        if caller.principal.is(Role::Admin) {
            return Ok(());
        }
        let resource = grant.resource.to_string();
        let verb = Verb::Administer;
        let key = match &grant.resource {
            Pattern::One(name) if name.starts_with("keys/") => {
                let id = crate::keys::KeyId::from_name(name)?;
                self.access.key(caller, &id, verb, &[], now_ms)?
            }
            _ => return Err(PolicyError::Denied { verb, resource }.into()),
        };
        let owns = key.owner == caller.owner().as_str();
        // Otherwise who keeps keys could give themselves the use of them.
        let keeper = caller.principal.is(Role::KeyAdmin) && !owns;
        if keeper && covers_caller(grant, caller) {
            return Err(PolicyError::OwnGrant.into());
        }
        Ok(())
    }

    fn may_see(&self, caller: &Caller, held: &Held, now_ms: u64) -> bool {
        let administers = || match &held.grant.resource {
            Pattern::One(name) => self
                .access
                .key_named(name)
                .is_some_and(|key| self.access.may(caller, &key, Verb::Administer, now_ms)),
            Pattern::All(_) => false,
        };
        sees_all(caller) || covers_caller(&held.grant, caller) || administers()
    }

    /// The grant, if the caller may see it.
    fn visible(&self, caller: &Caller, id: &str, now_ms: u64) -> Result<Arc<Held>, PolicyError> {
        let held = self.access.grants.get(id)?;
        if self.may_see(caller, &held, now_ms) {
            Ok(held)
        } else {
            Err(PolicyError::GrantNotFound(grants::name(id)))
        }
    }

    /// Whether the caller says yes or no to what others ask of the key.
    fn may_decide(&self, caller: &Caller, approval: &Approval, now_ms: u64) -> bool {
        self.access
            .key_named(&approval.key)
            .is_some_and(|key| self.access.may(caller, &key, Verb::Approve, now_ms))
    }

    fn may_see_approval(&self, caller: &Caller, approval: &Approval, now_ms: u64) -> bool {
        approval.requester == caller.principal.id.as_str()
            || caller.principal.is(Role::Auditor)
            || self.may_decide(caller, approval, now_ms)
    }

    fn explain(
        &self,
        caller: &Caller,
        message: &pb::ExplainAccessRequest,
        now_ms: u64,
    ) -> Result<pb::ExplainAccessResponse, Failure> {
        let own = caller.principal.id.as_str();
        let themselves = message.principal.is_empty() || message.principal == own;
        let mut roles = wire::roles(&message.roles)?;
        let about_themselves = themselves && roles.iter().all(|role| caller.principal.is(*role));
        if !sees_all(caller) && !about_themselves {
            return Err(PolicyError::OthersAccess.into());
        }
        if themselves && roles.is_empty() {
            roles.clone_from(&caller.principal.roles);
        }
        let principal: PrincipalId = if themselves { own } else { &message.principal }.parse()?;
        let resource = wire::resource(&message.resource)?;
        let aad = message.aad.as_deref();
        if aad.is_some_and(|aad| aad.len() > MAX_INPUT_BYTES) {
            return Err(PolicyError::Field("aad", "has at most 64 KiB").into());
        }
        let key = self.access.key_named(resource);
        let call = Call {
            principal: principal.as_str(),
            on_behalf_of: None,
            roles: &roles,
            verb: verb(&message.verb)?,
            resource,
            owner: key.as_ref().map(|key| key.owner.as_str()),
            network: wire::address(message.network.as_deref())?,
            aad,
            now_ms: wire::milliseconds("time", message.time)?.unwrap_or(now_ms),
        };
        let mut decision = self.access.explain(&with_bound_owner(call));
        if !resource.starts_with("keys/") {
            decision.because.push(Step {
                source: "owner".to_owned(),
                weight: Weight::Silent,
                text: "who owns it is known where it lives: its owner may do everything that is not denied"
                    .to_owned(),
            });
        }
        Ok(wire::decision(decision))
    }
}

fn verb(text: &str) -> Result<Verb, PolicyError> {
    text.parse()
        .map_err(|_| PolicyError::Field("verb", "must be one of the verbs of a grant, like decrypt"))
}

/// A digest of a grant for its event, as it is stored.
fn digest(held: &Held) -> Digest {
    Digest::of(&grants::encode(&held.grant))
}

impl PolicyAdapter {
    /// Has the caller say yes or no to what somebody else asked for.
    async fn decided<Req: Send + 'static>(
        &self,
        operation: &'static str,
        request: Request<Req>,
        name: fn(&Req) -> &str,
        decide: fn(&super::Approvals, &str, &str, u64) -> Result<Approval, PolicyError>,
    ) -> Result<Response<pb::Approval>, Status> {
        self.on_policy(operation, request, move |on, message, trail| {
            let now_ms = on.now_ms;
            let approval = decidable(on.policy, on.caller, name(&message), now_ms)?;
            trail
                .resource(approval_event(&approval))
                .input_digest(approval.parameters);
            let who = on.caller.principal.id.as_str();
            let approval = decide(&on.policy.approvals, &approval.id, who, now_ms)?;
            Ok(wire::approval(&approval, now_ms))
        })
        .await
    }
}

#[tonic::async_trait]
impl PolicyService for PolicyAdapter {
    async fn create_grant(
        &self,
        request: Request<pb::CreateGrantRequest>,
    ) -> Result<Response<pb::Grant>, Status> {
        self.on_policy("policy.CreateGrant", request, |on, message, trail| {
            let request_id = crate::wire::request_id(&message.request_id)?.to_owned();
            let grant = wire::grant(message.grant.unwrap_or_default())?;
            grant.check().map_err(PolicyError::from)?;
            trail.resource(grant.resource.to_string());
            let now_ms = on.now_ms;
            // What takes away does no harm, whomever it covers.
            match on.policy.may_change(on.caller, &grant, now_ms) {
                Err(refused) if refused.reason() == "OWN_GRANT" && grant.effect == Effect::Deny => {}
                other => other?,
            }
            let creator = on.caller.principal.id.as_str();
            let held = on
                .policy
                .access
                .grants
                .create(grant, creator, &request_id, now_ms)?;
            trail.resource(event_name(&held)).input_digest(digest(&held));
            Ok(wire::held(&held))
        })
        .await
    }

    async fn get_grant(&self, request: Request<pb::GetGrantRequest>) -> Result<Response<pb::Grant>, Status> {
        self.on_policy("policy.GetGrant", request, |on, message, trail| {
            trail.silent().resource(message.name.clone());
            let held = on
                .policy
                .visible(on.caller, wire::id(&message.name, "grants")?, on.now_ms)?;
            Ok(wire::held(&held))
        })
        .await
    }

    async fn list_grants(
        &self,
        request: Request<pb::ListGrantsRequest>,
    ) -> Result<Response<pb::ListGrantsResponse>, Status> {
        self.on_policy("policy.ListGrants", request, |on, message, trail| {
            trail.silent();
            let now_ms = on.now_ms;
            let limit = page_size(message.page_size)?;
            let after = wire::page_token(&message.page_token)?;
            let is = |wish: &str, text: String| wish.is_empty() || wish == text;
            let (found, next) = on.policy.access.grants.list(after, limit, |held| {
                is(&message.resource, held.grant.resource.to_string())
                    && is(&message.subject, held.grant.subject.to_string())
                    && on.policy.may_see(on.caller, held, now_ms)
            });
            Ok(pb::ListGrantsResponse {
                grants: found.iter().map(|held| wire::held(held)).collect(),
                next_page_token: next.unwrap_or_default(),
            })
        })
        .await
    }

    async fn update_grant(
        &self,
        request: Request<pb::UpdateGrantRequest>,
    ) -> Result<Response<pb::Grant>, Status> {
        self.on_policy("policy.UpdateGrant", request, |on, message, trail| {
            let message = message.grant.unwrap_or_default();
            trail.resource(message.name.clone());
            let id = wire::id(&message.name, "grants")?.to_owned();
            let (etag, now_ms) = (message.etag.clone(), on.now_ms);
            let mut grant = wire::grant(message)?;
            grant.id.clone_from(&id);
            let old = on.policy.visible(on.caller, &id, now_ms)?;
            on.policy.may_change(on.caller, &old.grant, now_ms)?;
            on.policy.may_change(on.caller, &grant, now_ms)?;
            let etag = if etag.is_empty() { &old.etag } else { &etag };
            let held = on.policy.access.grants.update(grant, etag)?;
            trail.resource(event_name(&held)).input_digest(digest(&held));
            Ok(wire::held(&held))
        })
        .await
    }

    async fn delete_grant(
        &self,
        request: Request<pb::DeleteGrantRequest>,
    ) -> Result<Response<pb::DeleteGrantResponse>, Status> {
        self.on_policy("policy.DeleteGrant", request, |on, message, trail| {
            trail.resource(message.name.clone());
            let id = wire::id(&message.name, "grants")?;
            let now_ms = on.now_ms;
            let old = on.policy.visible(on.caller, id, now_ms)?;
            on.policy.may_change(on.caller, &old.grant, now_ms)?;
            let etag = if message.etag.is_empty() {
                &old.etag
            } else {
                &message.etag
            };
            on.policy.access.grants.delete(id, etag)?;
            trail.resource(event_name(&old)).input_digest(digest(&old));
            Ok(pb::DeleteGrantResponse {})
        })
        .await
    }

    async fn explain_access(
        &self,
        request: Request<pb::ExplainAccessRequest>,
    ) -> Result<Response<pb::ExplainAccessResponse>, Status> {
        self.on_policy("policy.ExplainAccess", request, |on, message, trail| {
            trail.silent().resource(message.resource.clone());
            on.policy.explain(on.caller, &message, on.now_ms)
        })
        .await
    }

    async fn check_access(
        &self,
        request: Request<pb::CheckAccessRequest>,
    ) -> Result<Response<pb::CheckAccessResponse>, Status> {
        self.on_policy("policy.CheckAccess", request, |on, message, trail| {
            trail.silent().resource(message.resource.clone());
            let resource = wire::resource(&message.resource)?;
            if resource.starts_with("keys/") {
                return Err(PolicyError::Field("resource", "must be a dataset or a model").into());
            }
            let principal: PrincipalId = message.principal.parse()?;
            let call = Call {
                principal: principal.as_str(),
                on_behalf_of: None,
                roles: &wire::roles(&message.roles)?,
                verb: verb(&message.verb)?,
                resource,
                owner: Some(&message.owner),
                network: wire::address(message.network.as_deref())?,
                aad: None,
                now_ms: on.now_ms,
            };
            Ok(pb::CheckAccessResponse {
                allowed: on.policy.access.allows(&call),
            })
        })
        .await
    }

    async fn list_approvals(
        &self,
        request: Request<pb::ListApprovalsRequest>,
    ) -> Result<Response<pb::ListApprovalsResponse>, Status> {
        self.on_policy("policy.ListApprovals", request, |on, message, trail| {
            trail.silent();
            let now_ms = on.now_ms;
            let limit = page_size(message.page_size)?;
            let after = wire::page_token(&message.page_token)?;
            let sees = |approval: &Approval| on.policy.may_see_approval(on.caller, approval, now_ms);
            let (found, next) = on.policy.approvals.list(after, limit, sees);
            Ok(pb::ListApprovalsResponse {
                approvals: found
                    .iter()
                    .map(|approval| wire::approval(approval, now_ms))
                    .collect(),
                next_page_token: next.unwrap_or_default(),
            })
        })
        .await
    }

    async fn get_approval(
        &self,
        request: Request<pb::GetApprovalRequest>,
    ) -> Result<Response<pb::Approval>, Status> {
        self.on_policy("policy.GetApproval", request, |on, message, trail| {
            trail.silent().resource(message.name.clone());
            let now_ms = on.now_ms;
            let approval = on.policy.approvals.get(wire::id(&message.name, "approvals")?)?;
            if !on.policy.may_see_approval(on.caller, &approval, now_ms) {
                return Err(PolicyError::ApprovalNotFound(message.name).into());
            }
            Ok(wire::approval(&approval, now_ms))
        })
        .await
    }

    async fn approve_operation(
        &self,
        request: Request<pb::ApproveOperationRequest>,
    ) -> Result<Response<pb::Approval>, Status> {
        self.decided(
            "policy.ApproveOperation",
            request,
            |r| &r.name,
            super::Approvals::approve,
        )
        .await
    }

    async fn reject_operation(
        &self,
        request: Request<pb::RejectOperationRequest>,
    ) -> Result<Response<pb::Approval>, Status> {
        self.decided(
            "policy.RejectOperation",
            request,
            |r| &r.name,
            super::Approvals::reject,
        )
        .await
    }
}

/// The approval, for who may say yes or no to it; to others it does not exist, except to who asked for it.
fn decidable(policy: &Policy, caller: &Caller, name: &str, now_ms: u64) -> Result<Approval, Failure> {
    let approval = policy.approvals.get(wire::id(name, "approvals")?)?;
    if approval.requester == caller.principal.id.as_str() {
        return Err(PolicyError::SelfApproval.into());
    }
    if policy.may_decide(caller, &approval, now_ms) {
        Ok(approval)
    } else if policy.may_see_approval(caller, &approval, now_ms) {
        Err(PolicyError::Denied {
            verb: Verb::Approve,
            resource: approval.key,
        }
        .into())
    } else {
        Err(PolicyError::ApprovalNotFound(name.to_owned()).into())
    }
}

/// What the event of a change names: the grant, and on what.
fn event_name(held: &Held) -> String {
    format!("{}/{}", grants::name(&held.grant.id), held.grant.resource)
}

fn approval_event(approval: &Approval) -> String {
    format!("{}/{}", approval.name(), approval.key)
}

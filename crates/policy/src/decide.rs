//! The decision, and why.

use std::net::IpAddr;

use asterism_chassis::identity::Role;

use crate::{Effect, Grant, Verb, conditions::Fit};

/// A call to be judged.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Who calls.
    pub principal: &'a str,
    /// For whom, when a service acts for somebody.
    pub on_behalf_of: Option<&'a str>,
    /// Roles of who calls.
    pub roles: &'a [Role],
    /// What is to be done.
    pub verb: Verb,
    /// To what, by its full name.
    pub resource: &'a str,
    /// Whose that is, where it is.
    pub owner: Option<&'a str>,
    /// The address that the call comes from.
    pub network: Option<IpAddr>,
    /// Additional authenticated data; `None` for calls that have none.
    pub aad: Option<&'a [u8]>,
    /// Milliseconds since 1970.
    pub now_ms: u64,
}

impl<'a> Request<'a> {
    /// As whom grants see the caller: a service also as the one it acts for.
    fn who(&self) -> [&'a str; 2] {
        [self.principal, self.on_behalf_of.unwrap_or(self.principal)]
    }
}

/// What a step of the reasoning does to the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Speaks for the call.
    Allows,
    /// Speaks against it; nothing outweighs that.
    Denies,
    /// Does not count, for the reason in the text.
    Silent,
}

/// A step of the reasoning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// `grants/{id}`, `owner`, `role`, `policy` or `default`.
    pub source: String,
    /// What it does to the decision.
    pub weight: Weight,
    /// In words.
    pub text: String,
}

/// A decision and its reasons, in the order in which they count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the call passes.
    pub allowed: bool,
    /// Why.
    pub because: Vec<Step>,
}

/// What may speak, before it is put in words.
enum Voice<'g> {
    Grant(&'g Grant, Fit),
    Administrator,
    Owner,
    Role(Role),
    Nothing,
}

/// Whether the call passes. Allocates nothing.
pub fn allows<'g>(request: &Request<'_>, grants: impl Iterator<Item = &'g Grant> + Clone) -> bool {
    walk(request, grants, false, &mut |_, _| {})
}

/// Whether the call passes, and why.
pub fn decide<'g>(request: &Request<'_>, grants: impl Iterator<Item = &'g Grant> + Clone) -> Decision {
    let mut because = Vec::new();
    let allowed = walk(request, grants, true, &mut |voice, weight| {
        because.push(words(request, &voice, weight));
    });
    Decision { allowed, because }
}

/// Hears all who may speak, in order; only to the end when the reasons are asked for.
fn walk<'g>(
    request: &Request<'_>,
    grants: impl Iterator<Item = &'g Grant> + Clone,
    thorough: bool,
    hear: &mut dyn FnMut(Voice<'g>, Weight),
) -> bool {
    let who = request.who();
    let about = move |grant: &&Grant| {
        grant.verbs.contains(&request.verb)
            && grant.resource.covers(request.resource)
            && grant.subject.covers(&who, request.roles)
    };
    if request.verb == Verb::Administer && request.roles.contains(&Role::Admin) {
        hear(Voice::Administrator, Weight::Allows);
        return true;
    }
    let (mut denied, mut allowed) = (false, false);
    for grant in grants
        .clone()
        .filter(|grant| grant.effect == Effect::Deny)
        .filter(about)
    {
        let fit = grant.conditions.fit(request);
        let weight = match fit {
            Fit::Fails(_) => Weight::Silent,
            Fit::Holds | Fit::Unknown(_) => Weight::Denies,
        };
        denied |= weight == Weight::Denies;
        hear(Voice::Grant(grant, fit), weight);
        if denied && !thorough {
            return false;
        }
    }
    if request.owner.is_some_and(|owner| who.contains(&owner)) {
        allowed = true;
        hear(Voice::Owner, Weight::Allows);
    }
    for role in request.roles.iter().filter(|role| role_allows(**role, request)) {
        allowed = true;
        hear(Voice::Role(*role), Weight::Allows);
    }
    if allowed && !thorough {
        return true;
    }
    for grant in grants.filter(|grant| grant.effect == Effect::Allow).filter(about) {
        let fit = grant.conditions.fit(request);
        let weight = match fit {
            Fit::Holds => Weight::Allows,
            Fit::Fails(_) | Fit::Unknown(_) => Weight::Silent,
        };
        allowed |= weight == Weight::Allows;
        hear(Voice::Grant(grant, fit), weight);
    }
    if !allowed && !denied {
        hear(Voice::Nothing, Weight::Silent);
    }
    allowed && !denied
}

/// What roles may without a grant. Administrators everything; services too, because they check for whom they act; key
/// administrators what keeps keys, and nothing that uses them.
fn role_allows(role: Role, request: &Request<'_>) -> bool {
    match role {
        Role::Admin => true,
        Role::Service => request.verb != Verb::Administer,
        Role::KeyAdmin => request.resource.starts_with("keys/") && !request.verb.uses_keys(),
        Role::DataOwner | Role::Analyst | Role::Auditor | Role::Viewer => false,
    }
}

fn words(request: &Request<'_>, voice: &Voice<'_>, weight: Weight) -> Step {
    let verb = request.verb;
    let (source, text) = match voice {
        Voice::Administrator => (
            "policy".to_owned(),
            "an administrator may always administer the policy".to_owned(),
        ),
        Voice::Owner => (
            "owner".to_owned(),
            format!("the owner of {} may {verb}", request.resource),
        ),
        Voice::Role(role) => (
            "role".to_owned(),
            format!("the role {} may {verb} {}", role.name(), request.resource),
        ),
        Voice::Nothing => (
            "default".to_owned(),
            format!(
                "nothing allows {} to {verb} {}",
                request.principal, request.resource
            ),
        ),
        Voice::Grant(grant, fit) => {
            let does = match grant.effect {
                Effect::Allow => "allows",
                Effect::Deny => "denies",
            };
            let text = format!("{does} {} to {verb} {}", grant.subject, grant.resource);
            let but = match (fit, weight) {
                (Fit::Fails(why) | Fit::Unknown(why), Weight::Silent) => {
                    format!(", but does not count: {why}")
                }
                (Fit::Unknown(why), _) => format!(", and counts although {why}"),
                _ => String::new(),
            };
            (format!("grants/{}", grant.id), text + &but)
        }
    };
    Step { source, weight, text }
}

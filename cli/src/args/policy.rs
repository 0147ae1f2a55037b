//! `asterism policy`

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Subcommand};

/// `asterism policy`
#[derive(Subcommand, Debug)]
pub enum PolicyCommand {
    /// Lets somebody do something.
    Grant(GrantArgs),
    /// Keeps somebody from something, whatever else allows it.
    Deny(GrantArgs),
    /// Lists grants and denials.
    List {
        /// Only those on this resource, as they were written.
        #[arg(long, default_value = "")]
        resource: String,
        /// Only those about this subject, as they were written.
        #[arg(long, default_value = "")]
        subject: String,
    },
    /// Shows a grant.
    Show {
        /// grants/ID
        name: String,
    },
    /// Removes a grant or a denial.
    Revoke {
        /// grants/ID
        name: String,
        /// Only if the grant still has this etag.
        #[arg(long, default_value = "")]
        etag: String,
    },
    /// Says why a call would pass or fail.
    Explain(ExplainArgs),
    /// Lists what others have to approve.
    Approvals,
    /// Says yes to what somebody else asks for.
    Approve {
        /// approvals/ID
        name: String,
    },
    /// Says no to what somebody else asks for.
    Reject {
        /// approvals/ID
        name: String,
    },
}

/// `asterism policy grant|deny`
#[derive(Args, Debug)]
pub struct GrantArgs {
    /// user/bob, role:analyst or everyone.
    pub subject: String,
    /// Verbs, separated by commas, like decrypt,get.
    pub verbs: String,
    /// keys/x or keys/*; also datasets and models.
    pub resource: String,
    /// Counts from this time on (RFC 3339).
    #[arg(long, value_name = "TIME")]
    pub from: Option<jiff::Timestamp>,
    /// Counts until this time (RFC 3339).
    #[arg(long, value_name = "TIME")]
    pub until: Option<jiff::Timestamp>,
    /// Counts for calls from this network, like 10.0.0.0/8; may be repeated.
    #[arg(long)]
    pub network: Vec<String>,
    /// Counts for calls with this additional authenticated data.
    #[arg(long, conflicts_with = "aad_prefix")]
    pub aad: Option<String>,
    /// Counts for calls whose additional authenticated data begins so.
    #[arg(long)]
    pub aad_prefix: Option<String>,
    /// Why, for people.
    #[arg(long, default_value = "")]
    pub comment: String,
}

/// `asterism policy explain`
#[derive(Args, Debug)]
pub struct ExplainArgs {
    /// Who would call, like user/bob; `me` for yourself.
    pub principal: String,
    /// What they would do, like decrypt.
    pub verb: String,
    /// To what, like keys/x.
    pub resource: String,
    /// A role that they have; may be repeated.
    #[arg(long)]
    pub role: Vec<String>,
    /// The address that the call would come from.
    #[arg(long)]
    pub network: Option<IpAddr>,
    /// When (RFC 3339); now unless given.
    #[arg(long, value_name = "TIME")]
    pub at: Option<jiff::Timestamp>,
    /// File with the additional authenticated data of the call.
    #[arg(long, value_name = "FILE")]
    pub aad_file: Option<PathBuf>,
}

//! The command line of `asterism firewall`.

use clap::{Args, Subcommand, ValueEnum};

/// `asterism firewall`
#[derive(Args, Debug)]
pub struct FirewallArgs {
    /// Whose firewall; each service has one of its own.
    #[arg(long, value_enum, global = true, default_value_t = Which::All)]
    pub service: Which,
    /// What to do.
    #[command(subcommand)]
    pub command: FirewallCommand,
}

/// A service, or all of them.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// All four.
    All,
    /// Key management.
    Kms,
    /// Datasets.
    Ingest,
    /// Models.
    Inference,
    /// The log.
    Audit,
}

/// What `asterism firewall` does.
#[derive(Subcommand, Debug)]
pub enum FirewallCommand {
    /// Shows the rules.
    List,
    /// Puts networks or principals on the list of the allowed, or takes them off.
    Allow(EntryArgs),
    /// Puts networks or principals on the list of the blocked, or takes them off.
    Block(EntryArgs),
    /// Sets how often each caller may call: each principal that matches, or each address in a network.
    Limit {
        /// user/alice, user/*, *, 10.0.0.0/8, 2001:db8::/32, …
        subject: String,
        /// Requests per second, sustained.
        #[arg(long, required_unless_present = "remove")]
        rate: Option<f64>,
        /// Requests at once, after a rest; by default one second's worth.
        #[arg(long)]
        burst: Option<u32>,
        /// Takes the limit away.
        #[arg(long, conflicts_with_all = ["rate", "burst"])]
        remove: bool,
    },
    /// Changes what holds for whoever is on no list, and when networks are banned.
    Set(SetArgs),
    /// Lists the networks that are banned.
    Bans {
        /// Also those whose ban is over and not forgotten.
        #[arg(long)]
        ended: bool,
    },
    /// Ends the ban of a network before its time.
    Lift {
        /// As `bans` shows it, or an address in it.
        network: String,
    },
    /// Shows what the firewalls did since their services started.
    Stats,
}

/// `asterism firewall allow` and `block`
#[derive(Args, Debug)]
pub struct EntryArgs {
    /// Networks (10.0.0.0/8, 2001:db8::/32, one address) or principals (user/alice, user/*, *).
    #[arg(required = true, value_name = "SUBJECT")]
    pub subjects: Vec<String>,
    /// Until when it counts, e.g. 2027-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME")]
    pub until: Option<jiff::Timestamp>,
    /// For people.
    #[arg(long, default_value = "")]
    pub comment: String,
    /// Takes them off the list.
    #[arg(long, conflicts_with_all = ["until", "comment"])]
    pub remove: bool,
    /// Even if it turns this caller away.
    #[arg(long)]
    pub force: bool,
}

/// `asterism firewall set`; what is not given stays as it is.
#[derive(Args, Debug)]
pub struct SetArgs {
    /// What holds for whoever is on no list.
    #[arg(long, value_enum)]
    pub default: Option<DefaultKind>,
    /// Failures within the window that lead to a ban; 0: nobody is banned.
    #[arg(long)]
    pub failures: Option<u32>,
    /// Seconds of the window.
    #[arg(long)]
    pub window: Option<u64>,
    /// Seconds of the first ban; each further one is twice as long.
    #[arg(long)]
    pub first: Option<u64>,
    /// Seconds of the longest ban.
    #[arg(long)]
    pub longest: Option<u64>,
    /// A network that is never banned; may be repeated.
    #[arg(long, value_name = "NETWORK")]
    pub exempt: Vec<String>,
    /// A network that may be banned again; may be repeated.
    #[arg(long, value_name = "NETWORK")]
    pub unexempt: Vec<String>,
    /// Whether callers on the service's own machine are exempt from rules about networks and from bans.
    #[arg(long)]
    pub exempt_loopback: Option<bool>,
    /// Even if it turns this caller away.
    #[arg(long)]
    pub force: bool,
}

/// What holds for whoever is on no list.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultKind {
    /// It may call.
    Allow,
    /// It may not.
    Block,
}

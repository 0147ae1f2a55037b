//! The life of a key version, after NIST SP 800-57 part 1: which steps there are, and what each state allows.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where in its life a version is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Made, and not yet to be used.
    PreActive,
    /// Does everything.
    Active,
    /// Does nothing for the time being.
    Suspended,
    /// Decrypts and verifies only.
    Deactivated,
    /// As deactivated, and every use says so in its event.
    Compromised,
    /// Does nothing; the material goes when the window is over.
    DestroyScheduled,
    /// The material is gone.
    Destroyed,
}

/// What makes a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Somebody sets the state.
    Update,
    /// Somebody schedules the destruction.
    Schedule,
    /// Somebody undoes that.
    Restore,
    /// The window is over.
    Destroy,
}

/// What is asked of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Encrypts, signs, computes a MAC.
    Protect,
    /// Decrypts, verifies.
    Process,
    /// Gives its public key.
    Publish,
}

const ALL: [State; 7] = [
    State::PreActive,
    State::Active,
    State::Suspended,
    State::Deactivated,
    State::Compromised,
    State::DestroyScheduled,
    State::Destroyed,
];

/// From the state of the row to the state of the column, in the order of [`ALL`]. (A pre-active version becomes active at its time
/// without a step: see `Version::state`.) Nothing leads out of compromised but destruction, so that no detour makes a compromised
/// version a good one again; a restored version is where it was.
const STEPS: [[Option<Act>; 7]; 7] = {
    const U: Option<Act> = Some(Act::Update);
    const S: Option<Act> = Some(Act::Schedule);
    const R: Option<Act> = Some(Act::Restore);
    const D: Option<Act> = Some(Act::Destroy);
    const X: Option<Act> = None;
    [
        //  pre  act  sus  dea  com  sch  des
        [X, U, X, X, U, S, X], // pre-active
        [X, X, U, U, U, S, X], // active
        [X, U, X, U, U, S, X], // suspended
        [X, X, X, X, U, S, X], // deactivated
        [X, X, X, X, X, S, X], // compromised
        [R, R, R, R, R, X, D], // destroy scheduled
        [X, X, X, X, X, X, X], // destroyed
    ]
};

/// What a version in the state of the row may do: protect, process, publish.
const PERMITS: [[bool; 3]; 7] = [
    [false, false, true],  // pre-active: verifiers may have the public key beforehand
    [true, true, true],    // active
    [false, false, false], // suspended
    [false, true, true],   // deactivated
    [false, true, true],   // compromised
    [false, false, false], // destroy scheduled
    [false, false, false], // destroyed
];

impl State {
    /// Whether `act` leads from here to `to`.
    pub(crate) fn leads_to(self, to: Self, act: Act) -> bool {
        STEPS[self as usize][to as usize] == Some(act)
    }

    /// Whether a version in this state may do it.
    pub(crate) fn permits(self, operation: Operation) -> bool {
        PERMITS[self as usize][operation as usize]
    }

    /// Every state.
    pub fn all() -> [Self; 7] {
        ALL
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PreActive => "PRE_ACTIVE",
            Self::Active => "ACTIVE",
            Self::Suspended => "SUSPENDED",
            Self::Deactivated => "DEACTIVATED",
            Self::Compromised => "COMPROMISED",
            Self::DestroyScheduled => "DESTROY_SCHEDULED",
            Self::Destroyed => "DESTROYED",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{State::*, *};

    /// Every step that there is, said a second time and in another form.
    const EXPECTED: [(State, State, Act); 20] = [
        (PreActive, Active, Act::Update),
        (PreActive, Compromised, Act::Update),
        (PreActive, DestroyScheduled, Act::Schedule),
        (Active, Suspended, Act::Update),
        (Active, Deactivated, Act::Update),
        (Active, Compromised, Act::Update),
        (Active, DestroyScheduled, Act::Schedule),
        (Suspended, Active, Act::Update),
        (Suspended, Deactivated, Act::Update),
        (Suspended, Compromised, Act::Update),
        (Suspended, DestroyScheduled, Act::Schedule),
        (Deactivated, Compromised, Act::Update),
        (Deactivated, DestroyScheduled, Act::Schedule),
        (Compromised, DestroyScheduled, Act::Schedule),
        (DestroyScheduled, PreActive, Act::Restore),
        (DestroyScheduled, Active, Act::Restore),
        (DestroyScheduled, Suspended, Act::Restore),
        (DestroyScheduled, Deactivated, Act::Restore),
        (DestroyScheduled, Compromised, Act::Restore),
        (DestroyScheduled, Destroyed, Act::Destroy),
    ];

    #[test]
    fn every_pair_of_states_is_a_step_or_is_refused() {
        for (index, state) in ALL.iter().enumerate() {
            assert_eq!(
                *state as usize, index,
                "the tables are in the order of the states"
            );
        }
        for from in ALL {
            for to in ALL {
                for act in [Act::Update, Act::Schedule, Act::Restore, Act::Destroy] {
                    let step = (from, to, act);
                    let expected = EXPECTED.contains(&step);
                    assert_eq!(from.leads_to(to, act), expected, "{step:?}");
                }
            }
        }
    }

    #[test]
    fn a_compromised_version_never_becomes_a_good_one() {
        let mut reached = vec![Compromised];
        for _ in ALL {
            for to in ALL {
                // Restoring leads to where it was before, which is compromised.
                let by = |act| reached.iter().any(|from| from.leads_to(to, act));
                if !reached.contains(&to) && (by(Act::Update) || by(Act::Schedule) || by(Act::Destroy)) {
                    reached.push(to);
                }
            }
        }
        assert_eq!(reached, [Compromised, DestroyScheduled, Destroyed]);
    }

    #[test]
    fn each_state_allows_what_it_says() {
        use Operation::{Process, Protect, Publish};
        for state in ALL {
            assert_eq!(state.permits(Protect), state == Active, "{state}");
            let processes = matches!(state, Active | Deactivated | Compromised);
            assert_eq!(state.permits(Process), processes, "{state}");
            let publishes = processes || state == PreActive;
            assert_eq!(state.permits(Publish), publishes, "{state}");
        }
    }
}

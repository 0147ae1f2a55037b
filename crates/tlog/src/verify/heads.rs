//! The checkpoints: who signed them, and how they fit each other before any entry is read.

use asterism_crypto::Digest;

use super::{Options, Problem, ProblemKind, files::Files};
use crate::{
    checkpoint::{Endorsement, SignedCheckpoint},
    export::CHECKPOINT,
    node::MAX_SIZE,
    note::MAX_NOTE,
    source::Source,
};

/// A checkpoint whose signature verifies.
pub(super) struct Head {
    pub(super) size: u64,
    pub(super) root: Digest,
    /// Where it comes from, for telling.
    pub(super) name: String,
    /// A file of the log, and not one that was seen elsewhere.
    pub(super) path: Option<String>,
}

/// All checkpoints of a log.
#[derive(Default)]
pub(super) struct Heads {
    pub(super) origin: String,
    /// What the newest one says, signed or not.
    pub(super) size: u64,
    /// Those that the log signed, by size.
    pub(super) heads: Vec<Head>,
    /// Those behind the newest one.
    pub(super) witnesses: Vec<String>,
}

impl Heads {
    pub(super) fn read(
        source: &dyn Source,
        files: &Files,
        options: &Options,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut heads = Self::default();
        let mut read = Vec::new();
        for (path, size) in &files.checkpoints {
            match read_one(source, path, *size) {
                Ok(signed) => read.push((path.clone(), signed)),
                Err(problem) => problems.push(problem),
            }
        }
        // The one that is published says how far the log goes; where it is lost, the largest that is kept.
        let newest = read.iter().position(|(path, _)| path == CHECKPOINT);
        let newest = newest.or((0..read.len()).max_by_key(|at| read[*at].1.checkpoint().size));
        if let Some(newest) = newest {
            let checkpoint = read[newest].1.checkpoint();
            heads.origin.clone_from(&checkpoint.origin);
            heads.size = checkpoint.size;
        }
        if !files.checkpoints.iter().any(|(path, _)| path == CHECKPOINT) {
            problems.push(Problem::of_file(
                ProblemKind::Missing,
                CHECKPOINT,
                "the newest checkpoint is not there; without it nothing says how far the log goes",
            ));
        }
        for (at, (path, signed)) in read.iter().enumerate() {
            let endorsement = heads.admit(path.clone(), Some(path), signed, options, problems);
            if let Some(endorsement) = endorsement.filter(|_| Some(at) == newest) {
                heads.count_witnesses(path, &endorsement, options, problems);
            }
        }
        for (number, signed) in (1..).zip(&options.seen) {
            heads.admit(
                format!("the seen checkpoint {number}"),
                None,
                signed,
                options,
                problems,
            );
        }
        heads.heads.sort_by_key(|head| head.size);
        heads.drop_what_is_beyond(problems);
        heads
    }

    /// Verifies a checkpoint.
    fn admit(
        &mut self,
        name: String,
        path: Option<&String>,
        signed: &SignedCheckpoint,
        options: &Options,
        problems: &mut Vec<Problem>,
    ) -> Option<Endorsement> {
        let problem = |kind, detail| Problem {
            kind,
            index: None,
            path: path.cloned(),
            detail,
        };
        let checkpoint = signed.checkpoint();
        if checkpoint.origin != self.origin {
            let detail = format!("{name} is of the log {}, not {}", checkpoint.origin, self.origin);
            problems.push(problem(ProblemKind::Checkpoint, detail));
            return None;
        }
        let endorsement = match signed.verify(&options.keys) {
            Ok(endorsement) => endorsement,
            Err(error) => {
                let detail = format!("{name} cannot be believed: {error}");
                problems.push(problem(ProblemKind::Checkpoint, detail));
                return None;
            }
        };
        if !options.ignore_unknown_signatures {
            for (signer, id) in &endorsement.signers.unknown {
                let detail = format!(
                    "{name} has a signature by {signer} ({id}) that no key was given for; give the key, or say that \
                     unknown signatures may be ignored"
                );
                problems.push(problem(ProblemKind::UnknownSignature, detail));
            }
        }
        self.heads.push(Head {
            size: checkpoint.size,
            root: checkpoint.root,
            name,
            path: path.cloned(),
        });
        Some(endorsement)
    }

    fn count_witnesses(
        &mut self,
        path: &str,
        endorsement: &Endorsement,
        options: &Options,
        problems: &mut Vec<Problem>,
    ) {
        self.witnesses = endorsement
            .witnesses
            .iter()
            .map(|(name, _)| name.to_string())
            .collect();
        self.witnesses.sort();
        self.witnesses.dedup();
        let found = self.witnesses.len();
        if found < options.witnesses {
            let detail = format!(
                "{found} known witnesses stand behind the newest checkpoint, and {} are asked for",
                options.witnesses
            );
            problems.push(Problem::of_file(ProblemKind::Witnesses, path, detail));
        }
    }

    /// The log signed more than is there.
    fn drop_what_is_beyond(&mut self, problems: &mut Vec<Problem>) {
        let size = self.size;
        self.heads.retain(|head| {
            if head.size > size {
                problems.push(Problem {
                    kind: ProblemKind::RolledBack,
                    index: Some(size),
                    path: head.path.clone(),
                    detail: format!(
                        "{} is of {} entries, but the newest checkpoint ends at {size}: the log was rolled back",
                        head.name, head.size
                    ),
                });
            }
            head.size <= size
        });
    }
}

fn read_one(source: &dyn Source, path: &str, size: Option<u64>) -> Result<SignedCheckpoint, Problem> {
    let bytes = source.read(path, MAX_NOTE).map_err(|error| {
        Problem::of_file(
            ProblemKind::Unreadable,
            path,
            format!("{path} cannot be read: {error}"),
        )
    })?;
    let malformed = |detail| Problem::of_file(ProblemKind::Checkpoint, path, detail);
    let signed = SignedCheckpoint::parse(&bytes)
        .map_err(|error| malformed(format!("{path} is malformed: {error}")))?;
    let found = signed.checkpoint().size;
    match size {
        Some(size) if size != found || size > MAX_SIZE => Err(malformed(format!(
            "{path} should be of {size} entries, and is of {found}"
        ))),
        _ => Ok(signed),
    }
}

//! What became of some entries, told from the hashes that were logged.

use asterism_crypto::Digest;

use super::ProblemKind;

/// The first difference between the hashes of entries and those that were logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    /// Where, among the logged ones.
    pub(super) at: usize,
    pub(super) kind: ProblemKind,
}

/// `None` when they are the same.
pub(super) fn compare(found: &[Digest], logged: &[Digest]) -> Option<Difference> {
    let same = found
        .iter()
        .zip(logged)
        .take_while(|(found, logged)| found == logged)
        .count();
    if same == found.len() && same == logged.len() {
        return None;
    }
    let kind = kind(&found[same..], &logged[same..], logged);
    Some(Difference { at: same, kind })
}

/// What happened where `found` and `logged` begin to differ, of `all` that was logged.
fn kind(found: &[Digest], logged: &[Digest], all: &[Digest]) -> ProblemKind {
    let [next, others @ ..] = found else {
        return ProblemKind::Dropped;
    };
    let put_in = || match all.contains(next) {
        true => ProblemKind::Duplicated,
        false => ProblemKind::Inserted,
    };
    let [lost, rest @ ..] = logged else {
        return put_in();
    };
    // Whatever came before or after may have moved by one, and another have filled up the end.
    if others == rest {
        return if all.contains(next) {
            ProblemKind::Duplicated
        } else {
            ProblemKind::Altered
        };
    }
    if are_permuted(found, logged) {
        return ProblemKind::Reordered;
    }
    if begins_with(others, logged) {
        return put_in();
    }
    if begins_with(found, rest) && !found.contains(lost) {
        return ProblemKind::Dropped;
    }
    match found.len().cmp(&logged.len()) {
        std::cmp::Ordering::Less => ProblemKind::Dropped,
        std::cmp::Ordering::Equal => ProblemKind::Altered,
        std::cmp::Ordering::Greater => put_in(),
    }
}

/// Whether the shorter is the beginning of the longer.
fn begins_with(a: &[Digest], b: &[Digest]) -> bool {
    let shorter = a.len().min(b.len());
    shorter > 0 && a[..shorter] == b[..shorter]
}

fn are_permuted(a: &[Digest], b: &[Digest]) -> bool {
    let sorted = |hashes: &[Digest]| {
        let mut hashes = hashes.to_vec();
        hashes.sort_unstable();
        hashes
    };
    a.len() == b.len() && sorted(a) == sorted(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_told_from_the_hashes() {
        let logged: Vec<_> = (0..6).map(hash).collect();
        let told = |found: &[u8]| {
            let found: Vec<_> = found.iter().copied().map(hash).collect();
            compare(&found, &logged).map(|difference| (difference.at, difference.kind))
        };
        assert_eq!(told(&[0, 1, 2, 3, 4, 5]), None);
        assert_eq!(told(&[0, 1, 9, 3, 4, 5]), Some((2, ProblemKind::Altered)));
        assert_eq!(told(&[0, 1, 3, 4, 5]), Some((2, ProblemKind::Dropped)));
        assert_eq!(told(&[0, 1, 2, 3, 4]), Some((5, ProblemKind::Dropped)));
        assert_eq!(
            told(&[0, 1, 3, 4, 5, 8]),
            Some((2, ProblemKind::Dropped)),
            "the next bundle fills it up"
        );
        assert_eq!(told(&[0, 1, 1, 2, 3, 4, 5]), Some((2, ProblemKind::Duplicated)));
        assert_eq!(told(&[0, 1, 2, 3, 4, 5, 5]), Some((6, ProblemKind::Duplicated)));
        assert_eq!(
            told(&[0, 1, 1, 2, 3, 4]),
            Some((2, ProblemKind::Duplicated)),
            "the last moves on"
        );
        assert_eq!(
            told(&[0, 1, 4, 3, 4, 5]),
            Some((2, ProblemKind::Duplicated)),
            "over another"
        );
        assert_eq!(told(&[0, 1, 9, 2, 3, 4, 5]), Some((2, ProblemKind::Inserted)));
        assert_eq!(told(&[0, 1, 2, 3, 4, 5, 9]), Some((6, ProblemKind::Inserted)));
        assert_eq!(told(&[0, 2, 1, 3, 4, 5]), Some((1, ProblemKind::Reordered)));
        assert_eq!(told(&[5, 4, 3, 2, 1, 0]), Some((0, ProblemKind::Reordered)));
        assert_eq!(told(&[]), Some((0, ProblemKind::Dropped)));
    }

    fn hash(of: u8) -> Digest {
        Digest::of(&[of])
    }
}

//! Networks as ranges of addresses. Two networks lie one in the other or apart, so that between two neighbouring ends of networks every address lies in
//! the same ones: one binary search finds the smallest of them, which knows the next larger one.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

/// Values by network; a look-up costs the logarithm of their number, however many prefix lengths there are.
pub(super) struct Networks<T> {
    v4: Ranges<T>,
    v6: Ranges<T>,
}

impl<T> Networks<T> {
    /// Of one network that is there twice, the last value counts.
    pub(super) fn new(values: impl IntoIterator<Item = (IpNet, T)>) -> Self {
        let (mut v4, mut v6) = (BTreeMap::new(), BTreeMap::new());
        for (net, value) in values {
            let of = if net.addr().is_ipv4() { &mut v4 } else { &mut v6 };
            let (first, last) = (number(net.network()), number(net.broadcast()));
            of.insert((first, net.prefix_len()), (last, value));
        }
        Self {
            v4: Ranges::new(v4),
            v6: Ranges::new(v6),
        }
    }

    /// What is said of an address, the smallest network first.
    pub(super) fn of(&self, address: IpAddr) -> impl Iterator<Item = &T> {
        let ranges = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        ranges.of(number(address))
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// Of one family.
struct Ranges<T> {
    /// Where a range begins that goes up to the next one, in order; and the smallest network that it lies in.
    starts: Vec<u128>,
    smallest: Vec<Option<usize>>,
    /// Each with the next larger network around it.
    networks: Vec<(T, Option<usize>)>,
}

impl<T> Ranges<T> {
    /// By first address and prefix length, which brings every network after those around it.
    fn new(values: BTreeMap<(u128, u8), (u128, T)>) -> Self {
        let mut ranges = Self {
            starts: Vec::new(),
            smallest: Vec::new(),
            networks: Vec::with_capacity(values.len()),
        };
        // Those that have begun and not ended: the last address, and which.
        let mut open: Vec<(u128, usize)> = Vec::new();
        for ((first, _), (last, value)) in values {
            ranges.end(&mut open, Some(first));
            let at = ranges.networks.len();
            ranges
                .networks
                .push((value, open.last().map(|(_, around)| *around)));
            ranges.begin(first, Some(at));
            open.push((last, at));
        }
        ranges.end(&mut open, None);
        ranges
    }

    /// Ends the networks that do not reach `before`; without one, all.
    fn end(&mut self, open: &mut Vec<(u128, usize)>, before: Option<u128>) {
        while let Some((last, _)) = open.pop_if(|(last, _)| before.is_none_or(|first| *last < first)) {
            // Behind the last address of all there is nothing.
            if let Some(next) = last.checked_add(1) {
                self.begin(next, open.last().map(|(_, around)| *around));
            }
        }
    }

    fn begin(&mut self, start: u128, smallest: Option<usize>) {
        if self.starts.last() == Some(&start) {
            self.smallest.pop();
        } else {
            self.starts.push(start);
        }
        self.smallest.push(smallest);
    }

    fn of(&self, address: u128) -> impl Iterator<Item = &T> {
        let range = self.starts.partition_point(|start| *start <= address);
        let found = range.checked_sub(1).and_then(|range| self.smallest[range]);
        let mut next = found;
        std::iter::from_fn(move || {
            let (value, around) = &self.networks[next?];
            next = *around;
            Some(value)
        })
    }
}

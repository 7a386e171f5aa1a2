//! Moments of a network's sites that memory does not hold together: they are measured group by group, as rounding asks for them.
//!
//! Law: a site's moments are the same in any group, because each run adds the same rows in the same order. So weights do not depend on
//! the number of groups.

use crate::calibrate::{MomentText, moments_of, read_sites};
use crate::progress::Workers;
use snnc_ir::{Diagnostic, Graph, Value};
use snnc_passes::moments::{InputMoments, MomentSource, SiteMoments, moments_bytes};
use std::sync::{Arc, Mutex, PoisonError};

/// Sites in groups whose moments take at most so many bytes, one site at least. `reads` are the sites that projections read, in the
/// order in which their weights are rounded, and what each takes. A site that is read again later is in a later group once more.
pub fn groups(reads: &[(Value, u64)], bytes_max: u64) -> Vec<Vec<Value>> {
    let mut sites: Vec<(Value, u64)> = reads.to_vec();
    sites.sort_unstable();
    sites.dedup();
    let all: u64 = sites.iter().map(|(_, bytes)| bytes).sum();
    // Groups of one size are runs of one length.
    let enough = all / all.div_ceil(bytes_max.max(1)).max(1);
    let mut groups: Vec<Vec<Value>> = Vec::new();
    let mut held = u64::MAX;
    for &(site, bytes) in reads {
        if groups.last().is_some_and(|group| group.contains(&site)) {
            continue;
        }
        match groups.last_mut().filter(|_| held < enough && held + bytes <= bytes_max) {
            Some(group) => {
                group.push(site);
                held += bytes;
            }
            None => {
                groups.push(vec![site]);
                held = bytes;
            }
        }
    }
    groups
}

/// The sites that projections of a network read, in their order, and the bytes of their moments.
pub fn reads(graph: &Graph) -> Vec<(Value, u64)> {
    let read = |site: Value| (site, moments_bytes(graph.ty(site).shape().width().unwrap_or(0)) as u64);
    read_sites(graph).into_iter().map(read).collect()
}

/// Moments of the group that was asked for last.
#[derive(Debug)]
pub struct MeasuredMoments<'a> {
    /// The network that runs.
    pub graph: &'a Graph,
    /// What it runs on.
    pub text: MomentText<'a>,
    /// Who runs it.
    pub workers: Workers<'a>,
    /// All groups.
    pub groups: &'a [Vec<Value>],
    /// The number of one of them, and its moments.
    pub held: Mutex<(usize, SiteMoments)>,
}

impl MomentSource for MeasuredMoments<'_> {
    fn moments(&self, site: Value) -> Result<Option<Arc<InputMoments>>, Diagnostic> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = held.1.get(&site) {
            return Ok(Some(found.clone()));
        }
        let count = self.groups.len();
        let others = (1..=count).map(|step| (held.0 + step) % count);
        let Some(next) = others.into_iter().find(|&group| self.groups[group].contains(&site)) else { return Ok(None) };
        // No two groups are held at once.
        held.1 = SiteMoments::new();
        let stage = format!("measuring moments, group {} of {count}", next + 1);
        let sites = &self.groups[next];
        let moments = moments_of(self.graph, self.text, sites, &stage, self.workers).map_err(|e| e.into_first())?;
        *held = (next, moments);
        Ok(held.1.get(&site).cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grouped(reads: &[(u32, u64)], bytes_max: u64) -> Vec<Vec<u32>> {
        let reads: Vec<(Value, u64)> = reads.iter().map(|&(site, bytes)| (Value(site), bytes)).collect();
        groups(&reads, bytes_max).into_iter().map(|group| group.into_iter().map(|site| site.0).collect()).collect()
    }

    #[test]
    fn groups_fit_and_are_as_large_as_each_other() {
        let layer = |n: u32| [(4 * n, 1), (4 * n, 1), (4 * n, 1), (4 * n + 1, 1), (4 * n + 2, 1), (4 * n + 3, 16)];
        let reads = [layer(0), layer(1), layer(2), layer(3)].concat();
        assert_eq!(grouped(&reads, 76), [(0..16).collect::<Vec<u32>>()], "one run where all fit");
        assert_eq!(grouped(&reads, 75), [(0..8).collect::<Vec<u32>>(), (8..16).collect()], "halves, not 75 and 1");
        assert_eq!(grouped(&reads, 19).len(), 4);
        let alone = grouped(&reads, 1);
        assert_eq!(alone, (0..16).map(|site| vec![site]).collect::<Vec<_>>(), "one site at least");
        assert!(grouped(&[], 5).is_empty());
    }

    #[test]
    fn a_site_that_is_read_again_is_measured_again() {
        // Attention and MLP side by side: both read site 0, with what attention gives (1) between them.
        let reads = [(0, 4), (0, 4), (1, 4), (0, 4), (2, 16)];
        assert_eq!(grouped(&reads, 100), [vec![0, 1, 2]]);
        assert_eq!(grouped(&reads, 4), [vec![0], vec![1], vec![0], vec![2]]);
    }
}

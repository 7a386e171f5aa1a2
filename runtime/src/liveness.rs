//! How long values live, and where each lies in one arena. The plans of inference and of training share this.

use snnc_ir::Graph;

/// A value's memory, from the step that writes it first to the one that reads it last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// In whatever unit the arena has.
    pub size: usize,
    pub born: usize,
    pub dies: usize,
}

/// An offset for every value, such that values alive at the same step do not overlap, and the size of all together. Offsets
/// are multiples of `align`.
///
/// First fit in order of birth: a new value goes to the lowest gap between the values alive with it.
pub fn allocate(values: &[Lifetime], align: usize) -> (Vec<usize>, usize) {
    let size = |i: usize| values[i].size.next_multiple_of(align);
    let mut offsets = vec![0; values.len()];
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by_key(|&i| values[i].born);
    let mut live: Vec<usize> = Vec::new();
    let mut total = 0;
    for i in order {
        live.retain(|&other| values[other].dies >= values[i].born);
        live.sort_by_key(|&other| offsets[other]);
        let mut offset = 0;
        for &other in &live {
            if offset + size(i) <= offsets[other] {
                break;
            }
            offset = offset.max(offsets[other] + size(other));
        }
        offsets[i] = offset;
        total = total.max(offset + size(i));
        live.push(i);
    }
    (offsets, total)
}

/// By node: whether no state of a later token depends on it, so that rows which nobody wants need not be run.
pub fn leads_to_no_state(graph: &Graph) -> Vec<bool> {
    let mut late = vec![true; graph.nodes.len()];
    for (value, node) in graph.iter().rev() {
        if node.op.has_state() {
            late[value.index()] = false;
        }
        if !late[value.index()] {
            node.args.iter().for_each(|arg| late[arg.index()] = false);
        }
    }
    late
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_takes_the_memory_of_one_that_died() {
        let value = |size, born, dies| Lifetime { size, born, dies };
        // The third takes the first one's place. The second dies as the third is born, so those two do not share.
        let values = [value(8, 0, 1), value(4, 1, 2), value(4, 2, 3), value(6, 3, 3)];
        assert_eq!(allocate(&values, 4), (vec![0, 8, 0, 4], 12));
        assert_eq!(allocate(&[], 4), (vec![], 0));
    }

    #[test]
    fn no_two_that_live_together_overlap() {
        let values: Vec<Lifetime> =
            (0..60).map(|i| Lifetime { size: 1 + i * 7 % 13, born: i / 2, dies: i / 2 + i * 5 % 9 }).collect();
        let (offsets, total) = allocate(&values, 4);
        for (i, a) in values.iter().enumerate() {
            assert!(offsets[i] % 4 == 0 && offsets[i] + a.size <= total);
            for (j, b) in values.iter().enumerate().skip(i + 1) {
                let together = a.born <= b.dies && b.born <= a.dies;
                let apart = offsets[i] + a.size <= offsets[j] || offsets[j] + b.size <= offsets[i];
                assert!(!together || apart, "values {i} and {j}");
            }
        }
    }
}

//! The largest `k` of some scores: which keys fire where only the best may.

/// Keys that are not among the `most` of the largest scores; of equal ones, the latest are.
#[inline(always)]
pub(super) fn outside_topk<T: Copy + Ord>(scores: &[T], most: usize) -> Vec<usize> {
    if most == 0 || scores.len() <= most {
        return Vec::new();
    }
    let mut order = scores.to_vec();
    let (_, &mut least, _) = order.select_nth_unstable_by(most - 1, |a, b| b.cmp(a));
    let mut equals = most - scores.iter().filter(|&&score| score > least).count();
    let mut loses = |score: T| {
        if score != least {
            return score < least;
        }
        let late = equals > 0;
        equals -= usize::from(late);
        !late
    };
    scores.iter().enumerate().rev().filter(|&(_, &score)| loses(score)).map(|(j, _)| j).collect()
}

#[cfg(test)]
mod tests {
    use super::outside_topk;

    #[test]
    fn of_equal_scores_the_latest_win() {
        assert_eq!(outside_topk(&[3, 5, 3, 1, 3], 3), [3, 0]);
        assert_eq!(outside_topk(&[3, 5, 3], 3), [0; 0]);
        assert_eq!(outside_topk(&[7, 7, 7], 1), [1, 0]);
    }
}

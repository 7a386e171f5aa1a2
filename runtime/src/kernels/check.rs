//! Whether lengths of slices fit each other. What does not fit is a mistake of the caller and panics.

use snnc_ir::op::Heads;

pub(super) fn check_rows(x: usize, d: usize, y: usize) {
    assert!(d > 0 && x.is_multiple_of(d) && x == y, "rows of {d}: {x} values in, {y} out");
}

pub(super) fn check_rows_of(x: usize, k: usize, y: usize, m: usize) {
    assert!(
        k > 0 && m > 0 && x.is_multiple_of(k) && y == x / k * m,
        "rows of {k} to rows of {m}: {x} values in, {y} out"
    );
}

pub(super) fn check_product(x: usize, w: usize, k: usize, m: usize, y: usize) {
    check_rows_of(x, k, y, m);
    assert_eq!(w, k * m, "weights of {k} inputs and {m} outputs");
}

/// Queries, keys and values in rows of heads of `width`; keys and values are of every token so far.
pub(super) fn check_attention(q: usize, k: usize, v: usize, width: usize, heads: Heads, out: usize) {
    let (query, kv) = (heads.query as usize, heads.kv as usize);
    assert!(kv > 0 && query.is_multiple_of(kv), "{kv} heads of keys for {query} of queries");
    let (d, kd) = (query * width, kv * width);
    check_rows(q, d, out);
    assert!(k == v && k.is_multiple_of(kd) && k / kd >= q / d, "keys and values of every token so far: {k} and {v}");
}

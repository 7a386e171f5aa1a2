//! Whether lengths of slices fit each other. What does not fit is a mistake of the caller and panics.

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

pub(super) fn check_attention(q: usize, k: usize, v: usize, d: usize, heads: usize, out: usize) {
    check_rows(q, d, out);
    assert!(heads > 0 && d.is_multiple_of(heads), "{heads} heads in rows of {d}");
    assert!(k == v && k >= q && k.is_multiple_of(d), "keys and values of every token so far: {k} and {v} numbers");
}
